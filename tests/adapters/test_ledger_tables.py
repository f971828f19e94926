from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from tests.ledger_world import word
from tests.rules.escrow.test_rows import SAMPLES

from fallow.adapters import ledger_tables as tables
from fallow.errors import UsageError
from fallow.rules.escrow import ROWS, PendingRow, Row, RowKey, Table, key_of
from fallow.rules.escrow.rows import DoneRow, Pending
from fallow.units import MAX_UCR

BANK = b"b" * 20


def memory() -> sa.Engine:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        tables.prepare(connection, BANK)
    return engine


def test_rows_come_back_as_they_were_written() -> None:
    rows: dict[RowKey, Row] = {key_of(row): row for row in SAMPLES.values()}
    pending = PendingRow(b"c" * 20, (Pending(b"", MAX_UCR, MAX_UCR), Pending(word(1), 0, 0)))
    refused = DoneRow(b"c" * 20, word(1), word(2), "over_cap", "ü'\"; DROP TABLE accounts")
    rows |= {key_of(row): row for row in (pending, refused)}
    engine = memory()
    with engine.begin() as connection:
        for _ in range(2):
            tables.save(connection, rows)
        missing = RowKey(Table.ACCOUNT, b"nobody")
        assert tables.load(connection, [*rows, missing]) == rows | {missing: None}
        assert tables.load_all(connection) == rows
    engine.dispose()


def test_many_keys_are_loaded_in_several_lists() -> None:
    rows: dict[RowKey, Row] = {}
    for number in range(tables.IDS_PER_SELECT * 2 + 1):
        row = PendingRow(number.to_bytes(20, "big"))
        rows[key_of(row)] = row
    engine = memory()
    with engine.begin() as connection:
        tables.save(connection, rows)
        assert tables.load(connection, rows) == rows
    engine.dispose()


def test_a_database_belongs_to_one_bank() -> None:
    engine = memory()
    with engine.begin() as connection:
        tables.prepare(connection, BANK)
        with pytest.raises(UsageError, match="books of bank"):
            tables.prepare(connection, b"x" * 20)
    engine.dispose()


def test_an_empty_database_adds_up_to_nothing() -> None:
    engine = memory()
    with engine.begin() as connection:
        assert tables.add_up(connection) == (0, 0, 0, 0)
    engine.dispose()


def test_everything_can_be_said_to_postgresql() -> None:
    dialect = postgresql.dialect()
    for name in ROWS:
        made = str(sa.schema.CreateTable(tables.TABLES[name]).compile(dialect=dialect))
        assert "BYTEA" in made
        assert "ON CONFLICT (id) DO UPDATE" in str(tables.UPSERTS["postgresql"][name].compile(dialect=dialect))
    assert "BIGSERIAL" in str(sa.schema.CreateTable(tables.JOURNAL).compile(dialect=dialect))
    assert "WHERE closed_ms = 0" in str(sa.schema.CreateIndex(tables.OPEN_ESCROWS).compile(dialect=dialect))
