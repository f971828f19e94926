"""The bank over real calls on the simulator's network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from tests.ledger_world import (
    ALICE,
    BANK,
    HOUR,
    NOW,
    PROVIDER,
    REQUESTER,
    STRANGER,
    TERMS,
    WRONG,
    Dice,
    Person,
    claim,
    evidence,
    lease_id,
    lease_of,
    open_request,
    seal,
    slash_request,
    task,
    voucher,
    word,
)

from fallow.adapters.keys import Identity
from fallow.errors import FallowError, RejectedError, UsageError
from fallow.node.bank import Bank, BankPolicy, open_books
from fallow.node.bank_client import BankClient
from fallow.node.router import Router
from fallow.node.rpc import Rpc, serve
from fallow.ports import Ledger, Patience
from fallow.sim.ledger import MemoryLedger
from fallow.sim.transport import SimNetwork
from fallow.units import NodeId
from fallow.wire.certificates import certify
from fallow.wire.documents import Settlement
from fallow.wire.eip712 import open_signed
from fallow.wire.ledger import (
    IssueToken,
    LedgerRefused,
    OpenAccount,
    OpenEscrow,
    Refusal,
    SlashEquivocation,
    Transfer,
)

LEASE = lease_of()
OPERATOR = Person("bank")
OPERATOR.node = word("the operator's own machine")


class StillClock:
    def __init__(self) -> None:
        self.ms = NOW

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        await asyncio.sleep(0)


def identity_of(person: Person) -> Identity:
    return Identity(NodeId(person.node), person.account, b"", person.secret)


class Town:
    """A bank, and people who call it from nodes of their own."""

    def __init__(self, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.stack, self.network, self.clock = stack, SimNetwork(), StillClock()
        self.ledger: Ledger = MemoryLedger(TERMS, Dice(), seal, audit=True)
        self.bank = Bank(self.ledger, identity_of(BANK), self.clock)
        router = Router()
        self.bank.register(router)
        transport = self.network.listen(NodeId(BANK.node))
        stack.push_async_callback(transport.close)
        self.address = transport.address()
        self.server = group.create_task(serve(transport, router))

    async def rpc(self, person: Person) -> Rpc:
        return await self.stack.enter_async_context(Rpc(self.network.listen(NodeId(person.node))))

    async def client(self, person: Person) -> BankClient:
        return BankClient(await self.rpc(person), self.address, BANK.account, self.clock, Dice(), Patience(5, 5))

    async def join(self, person: Person, token: str = "") -> BankClient:
        client = await self.client(person)
        await client.open_account(person.certificate(self.clock.ms), token)
        return client


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        made = Town(stack, group)
        yield made
        made.server.cancel()


async def reason_of(work: object) -> str:
    with pytest.raises(RejectedError) as caught:
        await work  # pyright: ignore[reportGeneralTypeIssues]
    assert caught.value.money
    return f"{caught.value.code}: {caught.value.what}"


async def test_joining_with_an_invitation_and_paying(town: Town) -> None:
    token = await town.bank.new_token(uses=2)
    requester, provider = await town.join(REQUESTER, token), await town.join(PROVIDER, token)
    await provider.deposit(200)
    await requester.open(open_request(LEASE))
    await provider.redeem(voucher(LEASE, 120))
    await provider.close(lease_id(LEASE))
    assert (await requester.balance(PROVIDER.account)).available_ucr == TERMS.welcome_ucr - 200 + 120
    standing = await requester.standing(lease_id(LEASE))
    assert standing is not None
    settled = open_signed(standing.signed, Settlement, BANK.account, BANK.account)
    assert settled == standing.said
    assert (settled.paid_ucr, settled.refunded_ucr, settled.closed_ms) == (120, 380, NOW)
    books = await requester.books()
    assert books.minted_ucr == books.sum_ucr == 2 * TERMS.welcome_ucr


async def test_the_operator_grants_and_others_do_not(town: Town) -> None:
    operator, alice = await town.join(OPERATOR), await town.join(ALICE)
    await operator.grant(ALICE.account, 50)
    await alice.transfer(BANK.account, 20)
    await alice.deposit(10)
    await alice.unbond(5)
    assert (await alice.balance(ALICE.account)).staked_ucr == 10
    assert "not operator" in await reason_of(alice.grant(ALICE.account, 50))
    invitation = await (await town.rpc(ALICE)).call(town.address, IssueToken(word("x"), word("x"), 1, NOW))
    assert isinstance(invitation, LedgerRefused)
    assert invitation.reason is Refusal.NOT_OPERATOR


async def test_strangers_learn_and_do_nothing(town: Town) -> None:
    stranger = await town.client(STRANGER)
    for work in (
        stranger.transfer(ALICE.account, 1),
        stranger.balance(ALICE.account),
        stranger.books(),
        stranger.standing(lease_id(LEASE)),
        stranger.redeem(voucher(LEASE, 1)),
    ):
        assert (await reason_of(work)).startswith("E1304")


async def test_a_certificate_is_good_for_its_own_node_only(town: Town) -> None:
    await town.join(ALICE)
    thief = await town.client(STRANGER)
    assert "wrong certificate" in await reason_of(thief.open_account(ALICE.certificate()))
    forged = msgspec.structs.replace(certify(ALICE.secret, STRANGER.node, NOW), signature=voucher(LEASE, 1).signature)
    assert "wrong signer" in await reason_of(thief.open_account(forged))
    assert "bad document" in await reason_of(thief.open_account(voucher(LEASE, 1)))


async def test_a_caller_acts_for_its_own_account_whatever_it_says(town: Town) -> None:
    """Requests do not name who pays: it is always the account of the calling node."""
    operator, alice = await town.join(OPERATOR), await town.join(ALICE)
    await town.join(PROVIDER)
    await operator.grant(PROVIDER.account, 100)
    assert (await reason_of(alice.transfer(BANK.account, 1))).startswith("E1301")
    assert (await alice.balance(PROVIDER.account)).available_ucr == 100


async def test_an_expired_certificate_stops_working(town: Town) -> None:
    alice = await town.client(ALICE)
    await alice.open_account(ALICE.certificate(NOW, HOUR))
    await alice.books()
    town.clock.ms = NOW + HOUR
    assert (await reason_of(alice.books())).startswith("E1304")
    await alice.open_account(ALICE.certificate(town.clock.ms))
    await alice.books()


async def test_a_node_that_changes_hands_acts_for_its_new_owner_at_once(town: Town) -> None:
    operator = await town.join(OPERATOR)
    node = await town.join(ALICE)
    await operator.grant(ALICE.account, 100)
    await node.transfer(BANK.account, 1)
    await node.open_account(certify(PROVIDER.secret, ALICE.node, NOW + 1))
    assert (await reason_of(node.transfer(BANK.account, 1))).startswith("E1301")
    assert (await operator.balance(ALICE.account)).available_ucr == 99


async def test_draws_and_charges_over_the_wire(town: Town) -> None:
    operator = await town.join(OPERATOR)
    requester, provider = await town.join(REQUESTER), await town.join(PROVIDER)
    await operator.grant(REQUESTER.account, 1_000)
    await operator.grant(PROVIDER.account, 100)
    await provider.deposit(100)
    await requester.open(open_request(LEASE))
    assert await requester.draw(claim(LEASE)) == await requester.draw(claim(LEASE))
    answer = evidence(LEASE, PROVIDER, task(), WRONG)
    unproven = slash_request(answer, (answer, answer), LEASE, task())
    assert "bad witness" in await reason_of(requester.charge(unproven))
    one, two = claim(LEASE, root=word("1")), claim(LEASE, root=word("2"))
    await requester.charge(SlashEquivocation(lease_id(LEASE), one, two))
    assert (await requester.balance(PROVIDER.account)).slashed_ucr == 100


async def test_refusals_without_an_operation_can_be_read(town: Town) -> None:
    """A request whose document cannot be read has no hash, and its refusal must still be a good message."""
    rpc = await town.rpc(STRANGER)
    nonsense = OpenEscrow(*[voucher(LEASE, 1)] * 4)
    for request in (nonsense, Transfer(word("x"), ALICE.account, 1), OpenAccount(word("x"), voucher(LEASE, 1), "")):
        assert isinstance(await rpc.call(town.address, request), LedgerRefused)


async def test_an_invitation_survives_restarts_and_is_not_refilled(town: Town) -> None:
    token = await town.bank.new_token("ticket", uses=1)
    await town.join(REQUESTER, token)
    again = Bank(town.ledger, identity_of(BANK), town.clock)
    town.clock.ms += HOUR
    assert await again.new_token("ticket", uses=1) == token
    assert Refusal.BAD_TOKEN.value.replace("_", " ") in await reason_of(town.join(ALICE, token))
    assert await again.new_token("another") != token
    other = Bank(town.ledger, identity_of(ALICE), town.clock)
    with pytest.raises(FallowError, match="no_account"):
        await other.new_token("ticket")


async def test_books_are_opened_for_their_own_bank_only(tmp_path: Path) -> None:
    policy = BankPolicy(welcome_ucr=7, grace_s=1)
    books = open_books(tmp_path / "ledger.db", identity_of(BANK), Dice(), policy)
    assert books.terms.operator == BANK.account
    assert (books.terms.welcome_ucr, books.terms.grace_ms) == (7, 1_000)
    books.close()
    with pytest.raises(UsageError, match="books of bank"):
        open_books(tmp_path / "ledger.db", identity_of(ALICE), Dice(), policy)
