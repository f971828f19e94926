"""A small pool for ledger tests: people with fixed keys, and the documents they sign."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from fallow.rules.escrow import PoolTerms, token_hash
from fallow.sim.ledger import MemoryLedger
from fallow.wire.certificates import certify
from fallow.wire.claims import MerkleTree, lane_leaf, params_hash, setting_hash, task_id, task_leaf
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot, Document, Lease, Order, Settlement, Signed, Verdict, Voucher
from fallow.wire.eip712 import account_of, hash_document, open_signed, sign
from fallow.wire.ledger import (
    Deposit,
    Evidence,
    Grant,
    IssueToken,
    LedgerDone,
    LedgerRefused,
    OpenAccount,
    OpenEscrow,
    Slash,
)
from fallow.wire.messages import Message
from fallow.wire.tasks import LaneSetting, Part, TaskSpec

NOW = 1_800_000_000_000
HOUR = 3_600_000
TOKEN = "an invitation"


def word(*parts: object) -> bytes:
    return blake3(repr(parts).encode()).digest()


class Person:
    """A secret, its account, and one node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secret = word("secret", name)
        self.account = account_of(self.secret)
        self.node = word("node", name)

    def certificate(self, now_ms: int = NOW, lifetime_ms: int = 90 * 24 * HOUR) -> Signed:
        return certify(self.secret, self.node, now_ms, lifetime_ms)

    def sign(self, document: Document, bank: bytes | None = None) -> Signed:
        return sign(document, self.secret, BANK.account if bank is None else bank)


BANK, REQUESTER, PROVIDER, ALICE, BOB, STRANGER = (
    Person(name) for name in ("bank", "requester", "provider", "alice", "bob", "stranger")
)
PEOPLE = (BANK, REQUESTER, PROVIDER, ALICE, BOB)
TERMS = PoolTerms(
    bank=BANK.account,
    operator=BANK.account,
    welcome_ucr=1_000,
    unbonding_ms=10 * HOUR,
    grace_ms=60_000,
    hold_ms=600_000,
    min_witness_stake_ucr=10,
    max_accounts=100,
    answer_ms=HOUR,
    ruling_ms=5 * HOUR,
)


class Dice:
    """Entropy whose draws are numbered, so that two homes can be fed the same."""

    def __init__(self) -> None:
        self.draws = 0

    def draw(self, size_bytes: int) -> bytes:
        self.draws += 1
        return blake3(b"dice %d" % self.draws).digest(length=size_bytes)


def seal(settlement: Settlement) -> Signed:
    return BANK.sign(settlement)


def order_of(requester: Person = REQUESTER, numerics: str = "", kind: str = "echo") -> Order:
    return Order(
        requester.account, requester.node, word("job"), kind, numerics, 1, 1, 1, 0, 0, 1_000, 1_000, 0, "audit",
        NOW + HOUR, BANK.account, word("nonce"),
    )  # fmt: skip


ORDERS: dict[bytes, Signed] = {}
"""The orders that leases of tests name, as their requesters signed them."""


def ordered(requester: Person = REQUESTER, numerics: str = "") -> bytes:
    """The hash of such an order."""
    order = order_of(requester, numerics)
    digest = hash_document(order, BANK.account)
    ORDERS[digest] = requester.sign(order)
    return digest


def lease_of(requester: Person = REQUESTER, provider: Person = PROVIDER, **changes: Any) -> Lease:
    fields: dict[str, Any] = {
        "order": ordered(requester),
        "quote": word("quote"),
        "requester": requester.account,
        "provider": provider.account,
        "requester_node": requester.node,
        "provider_node": provider.node,
        "kind": "echo",
        "price_ucr": 1_000,
        "cap_ucr": 500,
        "stake_ucr": 100,
        "starts_ms": NOW,
        "ends_ms": NOW + HOUR,
        "bank": BANK.account,
    }
    return Lease(**(fields | changes))


def lease_id(lease: Lease) -> bytes:
    return hash_document(lease, lease.bank)


def open_request(
    lease: Lease, /, requester: Person = REQUESTER, provider: Person = PROVIDER, **changes: Any
) -> OpenEscrow:
    fields: dict[str, Any] = {
        "lease": requester.sign(lease, lease.bank),
        "provider_signature": provider.sign(lease, lease.bank),
        "requester_certificate": requester.certificate(),
        "provider_certificate": provider.certificate(),
    }
    return OpenEscrow(**(fields | changes))


def voucher(lease: Lease, cumulative_ucr: int, signer: Person = REQUESTER) -> Signed:
    return signer.sign(Voucher(lease_id(lease), cumulative_ucr))


def claim(lease: Lease, signer: Person = PROVIDER, root: bytes | None = None, sequence: int = 1) -> Signed:
    return signer.sign(ClaimRoot(lease_id(lease), sequence, root or word("root"), 1, 1))


def task(name: str = "task", kind: str = "echo") -> TaskSpec:
    return TaskSpec(kind, name.encode(), (), 7, 1, 60, 1 << 20)


def setting(model: str = "model A", kind: str = "echo") -> LaneSetting:
    return LaneSetting(kind, (Part("model", word(model), 1_000),))


def lane_task(model: str = "model A", kind: str = "echo") -> TaskSpec:
    """What a lane with this setting was asked."""
    return TaskSpec(kind, b"prompt", setting(model).inputs, 7, 1, 0, 0)


RIGHT, WRONG = word("right answer"), word("wrong answer")


def evidence(
    lease: Lease, provider: Person, spec: TaskSpec, output: bytes, *, lane: LaneSetting | None = None
) -> Evidence:
    """A claim over three leaves of which the second is the answer, on a lane opened with `lane` if there is one."""
    if lane is not None:
        leaf = lane_leaf(5, params_hash(spec.params), spec.seed, output, spec.units, setting_hash(lane))
    else:
        leaf = task_leaf(task_id(spec), output, spec.units)
    tree = MerkleTree([word("before"), leaf, word("after")])
    root = ClaimRoot(lease_id(lease), 1, tree.root, tree.count, 3)
    signed_lease, signed_claim = provider.sign(lease), provider.sign(root)
    return Evidence(signed_lease, signed_claim, output, spec.units, 1, tree.path(1), 5 if lane else 0)


def orders_of(*evidence: Evidence) -> tuple[Signed, ...]:
    return tuple(ORDERS[decode(Lease, one.lease.body).order] for one in evidence)


def slash_request(
    accused: Evidence,
    others: Sequence[Evidence],
    lease: Lease,
    spec: TaskSpec,
    signer: Person = REQUESTER,
    slash_ucr: int = 80,
    lane: LaneSetting | None = None,
) -> Slash:
    verdict = Verdict(lease_id(lease), task_id(spec), WRONG, RIGHT, slash_ucr)
    return Slash(signer.sign(verdict), spec, accused, tuple(others), orders_of(accused, *others), lane)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


class Pool:
    """A home under test: asks synchronously, counts operations, moves the clock."""

    def __init__(self, home: Any) -> None:
        self.home = home
        self.now_ms = NOW
        self.operations = 0

    def operation(self) -> bytes:
        self.operations += 1
        return word("operation", self.operations)

    def ask(self, request: Message, caller: Person) -> Message:
        return run(self.home.apply(request, caller.account, self.now_ms))

    def does(self, request: Message, caller: Person) -> None:
        answer = self.ask(request, caller)
        assert isinstance(answer, LedgerDone), answer

    def refuses(self, request: Message, caller: Person) -> str:
        """The reason; and nothing but the kept answer has changed."""
        before = money_rows(run(self.home.dump()))
        answer = self.ask(request, caller)
        assert isinstance(answer, LedgerRefused), answer
        assert money_rows(run(self.home.dump())) == before
        return answer.reason

    def balance(self, person: Person) -> Any:
        return run(self.home.balance(person.account, self.now_ms))

    def escrow(self, lease: Lease) -> Any:
        signed = run(self.home.settlement(lease_id(lease)))
        return open_signed(signed, Settlement, BANK.account, BANK.account)

    def join(self, *people: Person, token: str = "") -> None:
        for person in people:
            certificate = person.certificate(self.now_ms)
            self.does(OpenAccount(self.operation(), certificate, token), person)

    def grant(self, person: Person, amount_ucr: int) -> None:
        self.does(Grant(self.operation(), person.account, amount_ucr), BANK)

    def invite(self, token: str = TOKEN, uses: int = 10, expires_ms: int = NOW + 100 * HOUR) -> None:
        self.does(IssueToken(self.operation(), token_hash(token), uses, expires_ms), BANK)


def money_rows(rows: dict[Any, Any]) -> dict[Any, Any]:
    return {key: row for key, row in rows.items() if key.table != "operations"}


def new_pool(terms: PoolTerms = TERMS) -> Pool:
    return Pool(MemoryLedger(terms, Dice(), seal, audit=True))


def stocked_pool(terms: PoolTerms = TERMS) -> Pool:
    pool = new_pool(terms)
    stock(pool)
    return pool


def stock(pool: Pool) -> None:
    """Everybody gets 1,000 ucr, and 300 of stake except the requester."""
    pool.join(*PEOPLE)
    pool.grant(REQUESTER, 1_000)
    for person in (PROVIDER, ALICE, BOB):
        pool.grant(person, 1_300)
        pool.does(Deposit(pool.operation(), 300), person)
