"""Moves, and that the checks see every way in which books can be wrong: a check that never fails protects nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.ledger_world import ALICE, PROVIDER, REQUESTER, lease_id, lease_of, open_request, stocked_pool, word

from fallow.rules.escrow import (
    POOL,
    AccountRow,
    Book,
    EscrowRow,
    Outcome,
    PendingRow,
    Place,
    Row,
    RowKey,
    Table,
    account_key,
    balance_of,
    escrow_key,
    faults,
    imbalance_ucr,
    pending_key,
    totals,
)
from fallow.rules.escrow.books import MINT, PURSE, Draft, saturate
from fallow.rules.escrow.rows import Pending, PoolRow
from fallow.units import MAX_UCR
from fallow.wire.ledger import LedgerDone

A, B = b"a" * 20, b"b" * 20


def draft_of(*rows: Row) -> Draft:
    from fallow.rules.escrow import key_of

    return Draft({POOL: None} | {key_of(row): row for row in rows} | {pending_key(A): None})


def test_a_move_takes_from_one_place_and_adds_to_the_other() -> None:
    draft = draft_of(AccountRow(A, available_ucr=10), AccountRow(B))
    draft.move(Book(Place.AVAILABLE, A), Book(Place.AVAILABLE, B), 4)
    draft.move(MINT, PURSE, 3)
    draft.move(Book(Place.AVAILABLE, A), Book(Place.AVAILABLE, B), 0)
    assert (draft.account(A).available_ucr, draft.account(B).available_ucr) == (6, 4)
    assert draft.pool() == PoolRow(minted_ucr=3, purse_ucr=3)
    assert len(draft.moves) == 2


@pytest.mark.parametrize("amount", [11, -1, MAX_UCR + 1])
def test_a_move_that_cannot_be_stops_everything(amount: int) -> None:
    draft = draft_of(AccountRow(A, available_ucr=10), AccountRow(B))
    with pytest.raises(AssertionError):
        draft.move(Book(Place.AVAILABLE, A), Book(Place.AVAILABLE, B), amount)


def test_a_move_that_overflows_stops_everything() -> None:
    draft = draft_of(AccountRow(A, available_ucr=1), AccountRow(B, available_ucr=MAX_UCR))
    with pytest.raises(AssertionError):
        draft.move(Book(Place.AVAILABLE, A), Book(Place.AVAILABLE, B), 1)


def test_rows_that_were_not_loaded_cannot_be_missed_in_silence() -> None:
    with pytest.raises(KeyError):
        draft_of().find(AccountRow, account_key(B))


def test_what_is_due_arrives_and_the_rest_waits() -> None:
    row = AccountRow(A, unbonding_ucr=7, held_ucr=5)
    pending = PendingRow(A, (Pending(b"", 3, 100), Pending(word("lease"), 5, 100), Pending(b"", 4, 101)))
    seen = balance_of(A, row, pending, 99)
    assert (seen.available_ucr, seen.unbonding_ucr, seen.bonded_ucr, seen.staked_ucr) == (0, 7, 5, 12)
    seen = balance_of(A, row, pending, 100)
    assert (seen.available_ucr, seen.unbonding_ucr, seen.bonded_ucr, seen.staked_ucr) == (3, 4, 0, 9)
    assert balance_of(A, row, pending, 101).available_ucr == 7


def test_totals_that_only_inform_stop_at_the_top() -> None:
    assert saturate(MAX_UCR + 5) == MAX_UCR


def test_an_imbalance_is_seen_in_what_changed() -> None:
    before: dict[RowKey, Row | None] = {account_key(A): AccountRow(A, available_ucr=5), POOL: None}

    def imbalance(*rows: Row) -> int:
        from fallow.rules.escrow import key_of

        return imbalance_ucr(before, Outcome({key_of(row): row for row in rows}, (), LedgerDone(word(1))))

    assert imbalance(AccountRow(A, available_ucr=6)) == 1
    assert imbalance(AccountRow(A, stake_ucr=5)) == 0
    assert imbalance(AccountRow(A, available_ucr=6), PoolRow(minted_ucr=1)) == 0
    assert imbalance(PoolRow(minted_ucr=1)) == -1
    assert imbalance(PoolRow(purse_ucr=1)) == 1


def damaged() -> list[tuple[Any, str]]:
    lease = lease_id(lease_of())
    requester, provider, alice = (account_key(person.account) for person in (REQUESTER, PROVIDER, ALICE))
    return [
        ((requester, {"available_ucr": 501}), "minted"),
        ((POOL, {"minted_ucr": 1}), "minted"),
        ((requester, {"available_ucr": -1}), "negative"),
        ((requester, {"escrowed_ucr": 499}), "its leases hold something else"),
        ((provider, {"bonded_ucr": 0}), "its leases hold something else"),
        ((alice, {"held_ucr": 1}), "pending transfers add up"),
        ((alice, {"unbonding_ucr": 1}), "pending transfers add up"),
        ((escrow_key(lease), {"paid_ucr": 1}), "not the cap"),
        ((escrow_key(lease), {"paid_ucr": -1, "refunded_ucr": 1}), "negative"),
        ((escrow_key(lease), {"closed_ms": 1}), "closed, but still holds"),
        ((escrow_key(lease), {"bond_ucr": 99}), "do not fit the stake"),
        ((escrow_key(lease), {"slashed_ucr": 101}), "do not fit the stake"),
        ((escrow_key(lease), {"lease": word("other")}), "holds another row"),
    ]


@pytest.mark.parametrize(("damage", "found"), damaged())
def test_damage_is_found(damage: tuple[RowKey, dict[str, int]], found: str) -> None:
    pool = stocked_pool()
    pool.does(open_request(lease_of()), REQUESTER)
    rows: dict[RowKey, Any] = dict(pool.home.rows)
    assert faults(rows) == []
    key, changes = damage
    rows[key] = msgspec.structs.replace(rows[key], **changes)
    assert any(found in fault for fault in faults(rows)), faults(rows)


def test_pending_money_of_nobody_is_found() -> None:
    rows: dict[RowKey, Row] = {pending_key(A): PendingRow(A)}
    assert faults(rows) == [f"pending money of nobody: {A.hex()}"]


def test_totals_count_what_is_there() -> None:
    pool = stocked_pool()
    pool.does(open_request(lease_of()), REQUESTER)
    whole = totals(pool.home.rows.values())
    assert whole == (4_900, 4_900, 5, 1)
    assert any(isinstance(row, EscrowRow) for row in pool.home.rows.values())
    assert any(key.table is Table.DONE for key in pool.home.rows)
