"""What every client's side of money does: over a bank's role on a network, and straight into the books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from tests.courtroom import BY_ALICE, BY_BOB, accused, charge
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
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
from tests.settlements import BooksAtHand

from fallow.adapters.clock import SystemClock
from fallow.adapters.keys import Identity
from fallow.node.bank import Bank
from fallow.node.bank_client import BankClient
from fallow.node.router import Router
from fallow.node.rpc import Rpc, serve
from fallow.ports import Patience, SettlementClient
from fallow.sim.ledger import MemoryLedger
from fallow.sim.transport import SimNetwork
from fallow.units import NodeId
from fallow.wire.certificates import certify
from fallow.wire.claims import task_id
from fallow.wire.documents import Settlement as Word
from fallow.wire.documents import Signed
from fallow.wire.eip712 import open_signed
from fallow.wire.ledger import Appeal, OpenCharge, Refusal, Rule, SlashEquivocation
from fallow.wire.refusals import SettlementRefused

LEASE = lease_of()
ID = lease_id(LEASE)
Of = Callable[[Person], Awaitable[SettlementClient]]


class Still(SystemClock):
    """The hour at which the world's certificates hold."""

    def now_ms(self) -> int:
        return NOW


def at_hand(ledger: MemoryLedger, _stack: AsyncExitStack, _group: asyncio.TaskGroup) -> Of:
    async def of(person: Person) -> SettlementClient:
        return BooksAtHand(ledger, person, dice)

    dice = Dice()
    return of


def at_a_bank(ledger: MemoryLedger, stack: AsyncExitStack, group: asyncio.TaskGroup) -> Of:
    network, clock, router, dice = SimNetwork(), Still(), Router(), Dice()
    identity = Identity(NodeId(BANK.node), BANK.account, b"", BANK.secret)
    Bank(ledger, identity, clock).register(router)
    transport = network.listen(NodeId(BANK.node))
    stack.push_async_callback(transport.close)
    server = group.create_task(serve(transport, router))
    stack.callback(server.cancel)

    async def of(person: Person) -> SettlementClient:
        node = NodeId(word("the operator's machine") if person is BANK else person.node)
        rpc = await stack.enter_async_context(Rpc(network.listen(node)))
        return BankClient(rpc, transport.address(), BANK.account, clock, dice, Patience(5, 5))

    return of


@pytest.fixture(params=[at_hand, at_a_bank], ids=["at hand", "at a bank"])
async def of(request: pytest.FixtureRequest) -> AsyncIterator[Of]:
    """Everybody's own side of one pool's money. The requester holds 1,000, the provider half of that as stake."""
    ledger = MemoryLedger(TERMS, Dice(), seal, audit=True)
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        sides: dict[bytes, SettlementClient] = {}
        make: Of = request.param(ledger, stack, group)

        async def side(person: Person) -> SettlementClient:
            if person.account not in sides:
                sides[person.account] = await make(person)
                if person is not STRANGER:
                    await sides[person.account].open_account(certificate_of(person))
            return sides[person.account]

        for person in (REQUESTER, PROVIDER):
            await side(person)
            await (await side(BANK)).grant(person.account, 1_000)
        await (await side(PROVIDER)).deposit(500)
        yield side


def certificate_of(person: Person) -> Signed:
    if person is BANK:
        return certify(BANK.secret, word("the operator's machine"), NOW)
    return person.certificate()


async def refusal_of(work: Awaitable[object]) -> Refusal:
    with pytest.raises(SettlementRefused) as caught:
        await work
    return caught.value.refusal


async def test_the_life_of_a_lease(of: Of) -> None:
    requester, provider = await of(REQUESTER), await of(PROVIDER)
    assert await requester.standing(ID) is None
    await requester.open(open_request(LEASE))
    await provider.redeem(voucher(LEASE, 120))
    await provider.close(ID)
    standing = await requester.standing(ID)
    assert standing is not None
    assert standing.said == Word(ID, 120, 380, 0, NOW)
    assert open_signed(standing.signed, Word, BANK.account, BANK.account) == standing.said
    balance = await requester.balance(PROVIDER.account)
    assert (balance.available_ucr, balance.staked_ucr, balance.bonded_ucr) == (620, 500, 0)
    books = await provider.books()
    assert (books.minted_ucr, books.sum_ucr, books.open_escrows) == (2_000, 2_000, 0)


async def test_asking_again_moves_nothing_twice(of: Of) -> None:
    requester, provider = await of(REQUESTER), await of(PROVIDER)
    for _ in range(2):
        await requester.transfer(PROVIDER.account, 10, word("once"))
        await provider.deposit(5, word("once"))
        await provider.unbond(3, word("and once"))
        await requester.open(open_request(LEASE))
        await provider.redeem(voucher(LEASE, 7))
        await provider.close(ID)
    assert (await requester.balance(REQUESTER.account)).available_ucr == 983
    assert (await requester.balance(PROVIDER.account)).staked_ucr == 505


async def test_a_refusal_says_why_and_changes_nothing(of: Of) -> None:
    requester, provider = await of(REQUESTER), await of(PROVIDER)
    await requester.open(open_request(LEASE))
    before = await requester.books(), await requester.balance(REQUESTER.account), await requester.standing(ID)
    for work, reason in (
        (requester.transfer(PROVIDER.account, 5_000), Refusal.BALANCE_TOO_SMALL),
        (provider.unbond(5_000), Refusal.STAKE_TOO_SMALL),
        (requester.grant(REQUESTER.account, 5), Refusal.NOT_OPERATOR),
        (requester.deposit(0), Refusal.ZERO_AMOUNT),
        (requester.open(open_request(lease_of(cap_ucr=5_000))), Refusal.BALANCE_TOO_SMALL),
        (provider.redeem(voucher(LEASE, 501)), Refusal.OVER_CAP),
        (provider.redeem(voucher(lease_of(cap_ucr=7), 5)), Refusal.NO_ESCROW),
        (requester.close(ID), Refusal.TOO_EARLY),
        (requester.close(word("unknown")), Refusal.NO_ESCROW),
        (provider.draw(claim(LEASE)), Refusal.NOT_A_PARTY),
    ):
        assert await refusal_of(work) is reason
    assert before == (await requester.books(), await requester.balance(REQUESTER.account), await requester.standing(ID))


async def test_too_little_money_comes_with_the_numbers(of: Of) -> None:
    requester = await of(REQUESTER)
    with pytest.raises(SettlementRefused) as caught:
        await requester.transfer(PROVIDER.account, 5_000)
    assert caught.value.code == "E1301"
    assert "0.001 cr" in caught.value.what


async def test_who_is_no_member_is_told_so(of: Of) -> None:
    stranger = await of(STRANGER)
    assert await refusal_of(stranger.transfer(ALICE.account, 1)) is Refusal.NO_ACCOUNT
    assert await refusal_of(stranger.redeem(voucher(LEASE, 1))) is Refusal.NO_ACCOUNT
    assert await refusal_of(stranger.open_account(STRANGER.certificate(), "no such token")) is Refusal.BAD_TOKEN


async def test_a_draw_is_the_same_for_ever(of: Of) -> None:
    requester = await of(REQUESTER)
    await requester.open(open_request(LEASE))
    assert await requester.draw(claim(LEASE)) == await requester.draw(claim(LEASE))


async def test_charges_are_judged(of: Of) -> None:
    requester = await of(REQUESTER)
    await requester.open(open_request(LEASE))
    answer = evidence(LEASE, PROVIDER, task(), WRONG)
    unproven = slash_request(answer, (answer, answer), LEASE, task())
    assert await refusal_of(requester.charge(unproven)) is Refusal.BAD_WITNESS
    one, two = claim(LEASE, root=word("1")), claim(LEASE, root=word("2"))
    await requester.charge(SlashEquivocation(ID, one, two))
    assert (await requester.balance(PROVIDER.account)).slashed_ucr == 100
    standing = await requester.standing(ID)
    assert standing is not None
    assert standing.said.slashed_ucr == 100


async def test_a_charge_is_seen_and_answered(of: Of) -> None:
    requester = await of(REQUESTER)
    await requester.open(open_request(LEASE))
    for lease, person in ((BY_ALICE, ALICE), (BY_BOB, BOB)):
        await (await of(BANK)).grant(person.account, 200)
        await (await of(person)).deposit(200)
        await requester.open(open_request(lease, provider=person))
    assert set((await requester.draw(accused().claim)).drawn) == {ALICE.account, BOB.account}
    await requester.charge(charge())
    standing = await (await of(PROVIDER)).standing(ID)
    assert standing is not None
    assert standing.charge == OpenCharge(task_id(task()), 80, NOW + TERMS.answer_ms, appealed=False, evidence=charge())
    ground = task_id(task())
    assert await refusal_of(requester.answer(Appeal(ID, ground))) is Refusal.NOT_A_PARTY
    await (await of(PROVIDER)).answer(Appeal(ID, ground))
    assert await refusal_of(requester.answer(Rule(ID, ground, upheld=True))) is Refusal.NOT_REFEREE
    await (await of(BANK)).answer(Rule(ID, ground, upheld=False))
    standing = await requester.standing(ID)
    assert standing is not None
    assert (standing.charge, standing.said.slashed_ucr) == (None, 0)
    assert (await requester.balance(ALICE.account)).slashed_ucr == 40
