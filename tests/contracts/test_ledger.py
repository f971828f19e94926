"""What every home of the Ledger port does, whatever it keeps its rows in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import postgres
from tests.ledger_world import (
    ALICE,
    BANK,
    NOW,
    PROVIDER,
    REQUESTER,
    STRANGER,
    TERMS,
    TOKEN,
    Dice,
    Pool,
    claim,
    lease_id,
    lease_of,
    open_request,
    run,
    seal,
    stock,
    voucher,
    word,
)

from fallow.adapters.ledger_sql import SqlLedger, sqlite_url
from fallow.rules.escrow import faults
from fallow.sim.ledger import MemoryLedger
from fallow.wire.documents import Settlement
from fallow.wire.eip712 import open_signed
from fallow.wire.ledger import (
    CloseEscrow,
    DrawAuditors,
    Drawn,
    LedgerDone,
    LedgerRefused,
    Redeem,
    Refusal,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Ok

LEASE = lease_of()


def memory(_: Path) -> MemoryLedger:
    return MemoryLedger(TERMS, Dice(), seal, audit=True)


def sqlite(folder: Path) -> SqlLedger:
    return SqlLedger(sqlite_url(folder / "ledger.db"), TERMS, Dice(), seal)


def postgresql(_: Path) -> SqlLedger:
    return SqlLedger(postgres.books(), TERMS, Dice(), seal)


@pytest.fixture(params=[memory, sqlite, postgresql], ids=["memory", "sqlite", "postgresql"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    make: Callable[[Path], Any] = request.param
    home = make(tmp_path)
    pool = Pool(home)
    stock(pool)
    yield pool
    assert faults(run(home.dump())) == []
    if isinstance(home, SqlLedger):
        home.close()


def test_the_life_of_a_lease(pool: Pool) -> None:
    pool.does(open_request(LEASE), REQUESTER)
    pool.does(Redeem(voucher(LEASE, 120)), PROVIDER)
    pool.does(CloseEscrow(lease_id(LEASE)), PROVIDER)
    assert pool.balance(REQUESTER).available_ucr == 880
    assert pool.balance(PROVIDER).available_ucr == 1_120
    settled = pool.escrow(LEASE)
    assert (settled.paid_ucr, settled.refunded_ucr, settled.closed_ms) == (120, 380, NOW)


def test_settlements_are_signed_by_the_bank(pool: Pool) -> None:
    assert run(pool.home.settlement(lease_id(LEASE))) is None
    pool.does(open_request(LEASE), REQUESTER)
    signed = run(pool.home.settlement(lease_id(LEASE)))
    settlement = open_signed(signed, Settlement, BANK.account, BANK.account)
    assert settlement == Settlement(lease_id(LEASE), 0, 0, 0, 0)


def test_unknown_accounts_have_nothing(pool: Pool) -> None:
    seen = pool.balance(STRANGER)
    assert (seen.account, seen.available_ucr, seen.staked_ucr) == (STRANGER.account, 0, 0)


def test_books_add_up(pool: Pool) -> None:
    pool.does(open_request(LEASE), REQUESTER)
    books = run(pool.home.books())
    assert books.bank == BANK.account
    assert books.minted_ucr == books.sum_ucr == 1_000 + 3 * 1_300
    assert (books.accounts, books.open_escrows) == (5, 1)
    pool.does(CloseEscrow(lease_id(LEASE)), PROVIDER)
    assert run(pool.home.books()).open_escrows == 0


def test_nodes_are_bound_and_bindings_expire(pool: Pool) -> None:
    assert run(pool.home.speaker(ALICE.node, NOW)) == ALICE.account
    assert run(pool.home.speaker(STRANGER.node, NOW)) is None
    assert run(pool.home.speaker(ALICE.node, NOW + 91 * 24 * 3_600_000)) is None


def test_what_is_due_counts_as_arrived(pool: Pool) -> None:
    pool.does(Unbond(pool.operation(), 300), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms
    assert pool.balance(PROVIDER).available_ucr == 1_300
    assert run(pool.home.balance(PROVIDER.account)).available_ucr == 1_000


def test_answers_are_kept(pool: Pool) -> None:
    good, bad = Transfer(word("good"), ALICE.account, 100), Transfer(word("bad"), ALICE.account, 5_000)
    first = [pool.ask(request, REQUESTER) for request in (good, bad)]
    assert isinstance(first[0], LedgerDone)
    assert isinstance(first[1], LedgerRefused)
    assert first[1].reason == Refusal.BALANCE_TOO_SMALL
    pool.grant(REQUESTER, 50_000)
    assert [pool.ask(request, REQUESTER) for request in (good, bad)] == first
    assert pool.balance(REQUESTER).available_ucr == 50_900


def test_a_draw_is_made_once(pool: Pool) -> None:
    pool.does(open_request(LEASE), REQUESTER)
    seeds = [pool.ask(DrawAuditors(claim(LEASE)), REQUESTER) for _ in range(3)]
    assert all(isinstance(seed, Drawn) for seed in seeds)
    assert len(set(seeds)) == 1


def test_requests_at_once_are_done_one_after_the_other(pool: Pool) -> None:
    """Ten transfers of 300 from a balance of 1,000: exactly three fit, and each is done or refused as a whole."""

    async def all_at_once() -> list[Any]:
        requests = [Transfer(word("at once", number), ALICE.account, 300) for number in range(10)]
        return await asyncio.gather(*(pool.home.apply(request, REQUESTER.account, NOW) for request in requests))

    answers = run(all_at_once())
    assert [type(answer) for answer in answers] == [LedgerDone] * 3 + [LedgerRefused] * 7
    assert pool.balance(REQUESTER).available_ucr == 100


def test_a_lease_is_opened_paid_and_closed_in_one_burst(pool: Pool) -> None:
    """Later requests of a batch see what earlier ones did, rows that were not there before included."""

    async def all_at_once() -> list[Any]:
        requests = [
            open_request(LEASE),
            Redeem(voucher(LEASE, 10)),
            Redeem(voucher(LEASE, 30)),
            Redeem(voucher(LEASE, 20)),
            CloseEscrow(lease_id(LEASE)),
        ]
        return await asyncio.gather(*(pool.home.apply(request, PROVIDER.account, NOW) for request in requests))

    assert all(isinstance(answer, LedgerDone) for answer in run(all_at_once()))
    assert pool.escrow(LEASE).paid_ucr == 30


def test_other_messages_are_our_bug(pool: Pool) -> None:
    with pytest.raises(TypeError):
        pool.ask(Ok(), ALICE)


def test_an_invitation_is_used_up(pool: Pool) -> None:
    pool.invite(uses=1)
    pool.join(ALICE, token=TOKEN)
    assert pool.balance(ALICE).available_ucr == 1_000 + TERMS.welcome_ucr
