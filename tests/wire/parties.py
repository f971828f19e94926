"""A small pool of people with fixed keys, and what they would sign for one job: the stuff that receipts are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fallow.rules import trust
from fallow.units import cost_ucr
from fallow.wire.certificates import certify, node_of
from fallow.wire.claims import (
    MerkleTree,
    accounts_hash,
    lane_leaf,
    output_hash,
    params_hash,
    setting_hash,
    task_id,
    task_leaf,
    value_hash,
)  # fmt: skip
from fallow.wire.codec import decode
from fallow.wire.documents import (
    AuditDraw,
    ClaimRoot,
    Document,
    Lease,
    Order,
    Quote,
    Settlement,
    Signed,
    Verdict,
    Voucher,
)
from fallow.wire.eip712 import account_of, hash_document, sign
from fallow.wire.ledger import Evidence
from fallow.wire.receipts import LaneWork, NamedLaneWork, Receipt, TaskWork, seal
from fallow.wire.tasks import LaneSetting, Part, TaskOutput, TaskSpec

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
OTHERS = tuple(bytes((n,)) * 32 for n in range(200, 203))
"""Leaves of other tasks in the same claim."""


@dataclass(frozen=True)
class Party:
    account_secret: bytes
    node_secret: bytes

    @classmethod
    def named(cls, letter: str) -> Party:
        return cls(letter.encode() * 32, letter.upper().encode() * 32)

    @property
    def account(self) -> bytes:
        return account_of(self.account_secret)

    @property
    def node(self) -> bytes:
        return node_of(self.node_secret)

    def sign(self, document: Document) -> Signed:
        return sign(document, self.account_secret, BANK.account)

    def certificate(self) -> Signed:
        return certify(self.account_secret, self.node, NOW_MS - HOUR_MS)


BANK, REQUESTER, PROVIDER = Party.named("b"), Party.named("r"), Party.named("p")
AUDITORS = (Party.named("x"), Party.named("y"), Party.named("z"))

POLICY = "audit:probation=1,rate=0.1,quorum=2"
SEED = b"s" * 32
"""What the bank drew for the claim of every receipt."""
BYSTANDERS = tuple(bytes((n,)) * 20 for n in range(1, 30))
"""Accounts that could have been drawn."""

ORDER = Order(
    requester=REQUESTER.account, node=REQUESTER.node, job=b"j" * 32, kind="echo", numerics="", cpu_millis=1000,
    ram_bytes=1 << 30, disk_bytes=1 << 20, gpus=0, gpu_ram_bytes=0, units=1000, max_price_ucr=5_000,
    min_stake_ucr=100, verify=POLICY, ends_ms=NOW_MS + HOUR_MS, bank=BANK.account, nonce=b"n" * 32,
)  # fmt: skip
TASK = TaskSpec("echo", b"hello", (Part("in", b"i" * 32, 5),), seed=7, units=10, timeout_s=60, ram_bytes=1 << 20)
RIGHT, WRONG = TaskOutput(b"hello", (Part("out", b"o" * 32, 5),)), TaskOutput(b"olleh", ())


@dataclass(frozen=True)
class Deal:
    """An order, one provider's quote on it and the lease, before anybody signs."""

    provider: Party
    order: Order
    quote: Quote
    lease: Lease

    @property
    def lease_id(self) -> bytes:
        return hash_document(self.lease, BANK.account)


def deal(provider: Party, order: Order | None = None, /, **changes: Any) -> Deal:
    """The deal that both would agree on, with `changes` to the lease."""
    order = order or ORDER
    order_hash = hash_document(order, BANK.account)
    quote = Quote(order_hash, provider.account, provider.node, 2_000, 500, "", NOW_MS + 60_000)
    lease = Lease(
        order=order_hash, quote=hash_document(quote, BANK.account), requester=order.requester,
        provider=provider.account, requester_node=order.node, provider_node=provider.node, kind=order.kind,
        price_ucr=quote.price_ucr, cap_ucr=cost_ucr(order.units, quote.price_ucr), stake_ucr=quote.stake_ucr,
        starts_ms=NOW_MS, ends_ms=order.ends_ms, bank=BANK.account,
    )  # fmt: skip
    return Deal(provider, order, quote, msgspec.structs.replace(lease, **changes))


def claim_of(made: Deal, leaf: bytes, units: int) -> tuple[Signed, int, tuple[bytes, ...]]:
    """A signed root over `leaf` and some others -> (claim, index, path)."""
    tree = MerkleTree((*OTHERS, leaf))
    claim = ClaimRoot(made.lease_id, 1, tree.root, tree.count, units)
    return made.provider.sign(claim), 3, tree.path(3)


def evidence(auditor: Party, output: bytes, number: int = 0, units: int = TASK.units) -> Evidence:
    """What an auditor committed to for TASK, as an assigned task or as lane task `number`."""
    made = deal(auditor)
    leaf = (
        lane_leaf(number, params_hash(TASK.params), TASK.seed, output, units)
        if number
        else task_leaf(task_id(TASK), output, units)
    )
    claim, index, path = claim_of(made, leaf, units + 5)
    return Evidence(auditor.sign(made.lease), claim, output, units, index, path, number)


def receipt(made: Deal | None = None, output: TaskOutput = RIGHT) -> Receipt:
    """An accepted, paid and settled assigned task, checked by two."""
    made = made or deal(PROVIDER)
    claim, index, path = claim_of(made, task_leaf(task_id(TASK), output_hash(output), TASK.units), 25)
    paid = cost_ucr(25, made.lease.price_ucr)
    settlement = Settlement(made.lease_id, paid, made.lease.cap_ucr - paid, 0, NOW_MS + 50_000)
    return Receipt(
        made_ms=NOW_MS + 60_000, job=made.order.job, order=REQUESTER.sign(made.order),
        quote=made.provider.sign(made.quote), lease=REQUESTER.sign(made.lease),
        provider_signature=made.provider.sign(made.lease), requester_certificate=REQUESTER.certificate(),
        provider_certificate=made.provider.certificate(), claim=claim, work=TaskWork(TASK, output), index=index,
        path=path, policy=made.order.verify, verdict="accepted",
        evidence=tuple(evidence(auditor, output_hash(RIGHT)) for auditor in AUDITORS[:2]), units_final=25,
        voucher=REQUESTER.sign(Voucher(made.lease_id, paid)), settlement=BANK.sign(settlement), notes=("fine",),
        **drawn(claim, AUDITORS[:2]),
    )  # fmt: skip


def standing(auditor: Party, signer: Party | None = None, slashed_ucr: int = 0) -> Signed:
    """The bank's word on the lease that the auditor checks under."""
    return (signer or BANK).sign(Settlement(deal(auditor).lease_id, 0, 0, slashed_ucr, 0))


def draw(claim: Signed, signer: Party | None = None, seed: bytes = SEED, accounts: tuple[bytes, ...] = ()) -> Signed:
    """The bank's word on what it drew for a claim."""
    of = hash_document(decode(ClaimRoot, claim.body), BANK.account)
    return (signer or BANK).sign(AuditDraw(of, seed, accounts_hash(accounts)))


def drawn(claim: Signed, auditors: tuple[Party, ...]) -> dict[str, Any]:
    """What a receipt holds of the draw of these."""
    undrawn = trust.after(SEED, [one.account for one in auditors], BYSTANDERS)[:16]
    return {"standings": tuple(map(standing, auditors)), "draw": draw(claim), "undrawn": undrawn}


def cheats_receipt() -> Receipt:
    """A wrong answer: rejected by two who agree, paid nothing, slashed."""
    made = deal(PROVIDER)
    charge = Verdict(made.lease_id, task_id(TASK), output_hash(WRONG), output_hash(RIGHT), 500)
    settlement = Settlement(made.lease_id, 0, made.lease.cap_ucr, 500, NOW_MS + 50_000)
    return changed(
        receipt(made, WRONG),
        verdict="rejected",
        units_final=0,
        voucher=None,
        charge=REQUESTER.sign(charge),
        settlement=BANK.sign(settlement),
        draw=None,
        undrawn=(),
    )


def lane_receipt(setting: LaneSetting | None = None) -> Receipt:
    """An unchecked lane task, cleared and not settled yet; of a lane of before unless there is a `setting`."""
    made = deal(PROVIDER)
    work = LaneWork(12, TASK.params, TASK.seed, b"answer", 3)
    if setting is not None:
        work = NamedLaneWork(12, TASK.params, TASK.seed, b"answer", 3, setting=setting)
    opened = setting_hash(setting) if setting is not None else b""
    leaf = lane_leaf(12, params_hash(work.params), work.seed, value_hash(work.value), work.units, opened)
    claim, index, path = claim_of(made, leaf, 20)
    return changed(
        receipt(made), claim=claim, index=index, path=path, work=work, verdict="cleared", evidence=(),
        settlement=BANK.sign(Settlement(made.lease_id, 0, 0, 0, 0)), standings=(), draw=None, undrawn=(),
    )  # fmt: skip


def changed(original: Receipt, **changes: Any) -> Receipt:
    return msgspec.structs.replace(original, **changes)


def sealed(original: Receipt) -> bytes:
    return seal(original, REQUESTER.account_secret)
