"""Accounts, tickets and grants: what strangers and newcomers take from a pool's bank."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.attacks.target import Strangers, Target, answer_code, identity, target
from tests.ledger_world import (
    ALICE,
    BOB,
    PROVIDER,
    REQUESTER,
    TERMS,
    TOKEN,
    Pool,
    lease_id,
    lease_of,
    new_pool,
    open_request,
    voucher,
)

from fallow.adapters.clock import SystemClock
from fallow.node.bank import BURST
from fallow.node.rpc import Rpc
from fallow.units import UCR_PER_CR
from fallow.wire.ledger import (
    BalanceOf,
    Books,
    CloseEscrow,
    Deposit,
    GetBalance,
    GetBooks,
    LedgerDone,
    LedgerRefused,
    OpenAccount,
    Redeem,
    Refusal,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message

GUESSED = "fj_" + 32 * "0"


async def ask_open(rpc: Rpc, node: Target, number: int, token: str) -> Message:
    certificate = identity(number).certificate(SystemClock().now_ms())
    return await rpc.call(node.address, OpenAccount(bytes(31) + bytes([number]), certificate, token))


async def test_strangers_leave_no_trace_at_a_bank(tmp_path: Path) -> None:
    """Forty keys ask for accounts, with no ticket and with a guessed one, and for everything else a bank answers.
    Gained: 0 accounts, 0 rows, 0 credits. Cost: a connection each."""
    async with target(tmp_path, "--roles", "bank,directory") as node, Strangers() as strangers:
        member = await strangers.rpc(100)
        assert isinstance(await ask_open(member, node, 100, node.ticket.token), LedgerDone)
        before = await member.call(node.address, GetBooks())
        assert isinstance(before, Books)
        for number in range(40):
            rpc = await strangers.rpc(number)
            for token in ("", GUESSED):
                answer = await ask_open(rpc, node, number, token)
                assert isinstance(answer, LedgerRefused)
                assert answer.reason == Refusal.BAD_TOKEN
            for request in (GetBalance(identity(number).account), Deposit(bytes(32), 1), GetBooks()):
                answer = await rpc.call(node.address, request)
                assert isinstance(answer, LedgerRefused)
                assert answer.reason == Refusal.NO_ACCOUNT
        assert await member.call(node.address, GetBooks()) == before
        assert before.accounts == 2


async def test_a_ticket_is_worth_little_and_its_grant_stays(tmp_path: Path) -> None:
    """Somebody with a ticket of 3 uses opens accounts with as many keys as they like, and sends the grants to one of
    them. Gained: 2 grants for work, one use being the member's own; 0 credits that can be sent. Cost: the ticket."""
    words = ("--roles", "bank,directory", "--ticket-uses", "3", "--welcome", "5")
    async with target(tmp_path, *words) as node, Strangers() as strangers:
        opened: list[int] = []
        for number in range(6):
            rpc = await strangers.rpc(number)
            answer = await ask_open(rpc, node, number, node.ticket.token)
            if isinstance(answer, LedgerDone):
                opened.append(number)
        assert opened == [0, 1, 2]
        to = identity(0).account
        for number in (1, 2):
            rpc = await strangers.rpc(number)
            answer = await rpc.call(node.address, Transfer(bytes(31) + b"t", to, 1))
            assert isinstance(answer, LedgerRefused)
            assert answer.reason == Refusal.GRANT_STAYS
        balance = await (await strangers.rpc(0)).call(node.address, GetBalance(to))
        assert isinstance(balance, BalanceOf)
        assert balance.available_ucr == 5 * UCR_PER_CR


def granted() -> Pool:
    pool = new_pool(msgspec.structs.replace(TERMS, invited_only=True))
    pool.invite()
    pool.join(ALICE, BOB, token=TOKEN)
    return pool


@pytest.mark.parametrize("detour", ["none", "stake", "unbond"])
def test_no_detour_frees_a_grant(detour: str) -> None:
    """A newcomer stakes the grant, or stakes it and takes it out again, and then sends it. Gained: 0."""
    pool = granted()
    if detour != "none":
        pool.does(Deposit(pool.operation(), 400), ALICE)
    if detour == "unbond":
        pool.does(Unbond(pool.operation(), 400), ALICE)
        pool.now_ms += TERMS.unbonding_ms + 1
    send = Transfer(pool.operation(), BOB.account, 1)
    assert pool.refuses(send, ALICE) == Refusal.GRANT_STAYS
    pool.grant(ALICE, 7)
    assert pool.refuses(Transfer(pool.operation(), BOB.account, 8), ALICE) == Refusal.GRANT_STAYS
    pool.does(Transfer(pool.operation(), BOB.account, 7), ALICE)
    assert pool.balance(BOB).available_ucr == TERMS.welcome_ucr + 7


def test_what_was_spent_on_work_is_no_longer_tied() -> None:
    """An honest newcomer spends the grant, and can send what it owns besides; the provider, what it earned."""
    pool = granted()
    pool.join(REQUESTER, PROVIDER, token=TOKEN)
    pool.does(Deposit(pool.operation(), 100), PROVIDER)
    lease = lease_of()
    pool.does(open_request(lease), REQUESTER)
    pool.does(Redeem(voucher(lease, 300)), PROVIDER)
    pool.does(CloseEscrow(lease_id(lease)), PROVIDER)
    pool.grant(REQUESTER, 50)
    assert pool.refuses(Transfer(pool.operation(), ALICE.account, 51), REQUESTER) == Refusal.GRANT_STAYS
    pool.does(Transfer(pool.operation(), ALICE.account, 50), REQUESTER)
    assert pool.refuses(Transfer(pool.operation(), ALICE.account, 301), PROVIDER) == Refusal.GRANT_STAYS
    pool.does(Transfer(pool.operation(), ALICE.account, 300), PROVIDER)


async def test_a_member_cannot_write_the_books_full(tmp_path: Path) -> None:
    """A member asks for one refused transfer after another, each of which the books remember. Gained: a burst, then as
    many a second as honest work needs; E1803 for the rest."""
    async with target(tmp_path, "--roles", "bank,directory") as node, Strangers() as strangers:
        rpc = await strangers.rpc(1)
        assert isinstance(await ask_open(rpc, node, 1, node.ticket.token), LedgerDone)
        codes: list[str] = []
        for start in range(0, 10 * BURST, 50):
            if "E1803" in codes:
                break
            requests = [Transfer(n.to_bytes(32), bytes(20), 1) for n in range(start, start + 50)]
            codes += await asyncio.gather(*[answer_code(rpc, node.address, one) for one in requests])
        assert set(codes) == {"", "E1803"}
        assert codes[:BURST] == [""] * BURST
