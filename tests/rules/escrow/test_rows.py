from __future__ import annotations

from typing import get_args

from tests.ledger_world import word

from fallow.rules.escrow import ROWS, Place, Row, Table, key_of
from fallow.rules.escrow import rows as declared
from fallow.rules.escrow.rows import done_key, verdict_key
from fallow.wire.ledger import Refusal

SAMPLES: dict[type, Row] = {
    declared.PoolRow: declared.PoolRow(),
    declared.AccountRow: declared.AccountRow(b"a" * 20),
    declared.NodeRow: declared.NodeRow(word(1), b"a" * 20, 0, 1),
    declared.TokenRow: declared.TokenRow(word(2), 1, 1),
    declared.EscrowRow: declared.EscrowRow(word(3), b"a" * 20, b"b" * 20, 1, 1, 1, 1),
    declared.PendingRow: declared.PendingRow(b"a" * 20),
    declared.DoneRow: declared.DoneRow(b"a" * 20, word(4), word(5), "", ""),
    declared.DrawRow: declared.DrawRow(word(6), word(3), word(7)),
    declared.VerdictRow: declared.VerdictRow(word(3), word(8), word(9), 1),
    declared.StakersRow: declared.StakersRow(),
}


def test_every_row_has_a_table_and_a_key_of_its_own() -> None:
    assert set(SAMPLES) == set(get_args(Row)) == set(ROWS.values())
    assert set(ROWS) == set(Table)
    for table, kind in ROWS.items():
        assert key_of(SAMPLES[kind]).table is table
    assert len({key_of(row) for row in SAMPLES.values()}) == len(SAMPLES)


def test_keys_of_pairs_do_not_run_into_each_other() -> None:
    assert done_key(b"a" * 20, word(1)) != done_key(b"b" * 20, word(1)) != done_key(b"b" * 20, word(2))
    assert verdict_key(word(1), word(2)) != verdict_key(word(2), word(1))


def test_every_place_is_a_field_of_its_table() -> None:
    for place in Place:
        assert place.field in ROWS[place.table].__struct_fields__


def test_reasons_travel_as_short_words() -> None:
    assert all(reason.value == reason.name.lower() for reason in Refusal)
    assert all(len(reason.value) <= 200 for reason in Refusal)
