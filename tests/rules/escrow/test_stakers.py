from __future__ import annotations

import random

import pytest
from tests.ledger_world import stocked_pool

from fallow.rules.escrow import STAKERS, AccountRow, StakersRow, account_key, stakers, stakers_of
from fallow.rules.escrow.rows import pack, unpack
from fallow.rules.escrow.stakers import misfits, restake


def account(number: int) -> bytes:
    return number.to_bytes(20, "big")


def test_the_register_follows_every_change() -> None:
    chance, row, stakes = random.Random(1), StakersRow(), dict[bytes, int]()
    for _ in range(2_000):
        who, live_ucr = account(chance.randrange(50)), chance.choice((0, chance.randrange(1, 1 << 62)))
        row = restake(row, who, live_ucr)
        stakes[who] = live_ucr
        assert unpack(row.stakes) == tuple(sorted((one, ucr) for one, ucr in stakes.items() if ucr))


def test_a_full_register_keeps_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stakers, "MAX_STAKERS", 3)
    row = stakers_of(AccountRow(account(n), stake_ucr=n) for n in range(6))
    assert unpack(row.stakes) == tuple((account(n), n) for n in (3, 4, 5))
    assert restake(row, account(1), 3) == row
    assert unpack(restake(row, account(1), 4).stakes) == ((account(1), 4), (account(4), 4), (account(5), 5))
    assert unpack(restake(row, account(4), 0).stakes) == ((account(3), 3), (account(5), 5))


def test_bonds_count_and_what_is_on_its_way_out_does_not() -> None:
    rows = [AccountRow(account(1), available_ucr=9, stake_ucr=1, bonded_ucr=2, held_ucr=4, unbonding_ucr=8), None]
    assert unpack(stakers_of(rows).stakes) == ((account(1), 7),)


def test_a_register_that_does_not_fit_is_noticed() -> None:
    rows = dict(stocked_pool().home.rows)
    assert not misfits(rows)
    assert misfits(rows | {STAKERS: StakersRow()})
    assert misfits(rows | {STAKERS: StakersRow(pack([(account(7), 1)]))})
    assert misfits(rows | {account_key(account(8)): AccountRow(account(8), stake_ucr=1)})
