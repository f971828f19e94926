"""The books as SQL tables, for SQLite and PostgreSQL alike: one table for each kind of row in `rules.escrow`, keyed by
the row's `RowKey.id`, a journal of every double entry, and the schema's version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from fallow.errors import fail
from fallow.rules.escrow import ROWS, STAKERS, ChargeStage, Move, PendingRow, Row, RowKey, Table, stakers_of

SCHEMA_VERSION = 3
"""2 added what of an account's money is tied, 3 charges that can be answered, and the register of stakes. Older books
take it on when they are opened: the defaults of the columns that they lack are right for them."""
IDS_PER_SELECT = 500
"""SQLite takes 32,766 parameters; smaller lists keep the statement cache useful."""

METADATA = sa.MetaData()
META = sa.Table("meta", METADATA, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String))
JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("cause", sa.String, nullable=False),
    sa.Column("debit_place", sa.String, nullable=False),
    sa.Column("debit_id", sa.LargeBinary, nullable=False),
    sa.Column("credit_place", sa.String, nullable=False),
    sa.Column("credit_id", sa.LargeBinary, nullable=False),
    sa.Column("amount_ucr", sa.BigInteger, nullable=False),
)
"""`cause` is the name of the request; the rows are never changed."""

_PENDING = msgspec.msgpack.Decoder(PendingRow)
_COLUMN_TYPES: dict[object, Any] = {
    int: sa.BigInteger, bytes: sa.LargeBinary, str: sa.String, bool: sa.Boolean,
}  # fmt: skip


def _table(name: Table, row: type[Row]) -> sa.Table:
    columns = [sa.Column("id", sa.LargeBinary, primary_key=True)]
    if row is PendingRow:
        columns.append(sa.Column("body", sa.LargeBinary, nullable=False))
    else:
        hints = get_type_hints(row)
        columns += [sa.Column(field, _COLUMN_TYPES[hints[field]], nullable=False) for field in row.__struct_fields__]
    return sa.Table(name.value, METADATA, *columns)


TABLES: dict[Table, sa.Table] = {name: _table(name, row) for name, row in ROWS.items()}
OPEN_ESCROWS = sa.Index(
    "open_escrows",
    TABLES[Table.ESCROW].c.id,
    sqlite_where=TABLES[Table.ESCROW].c.closed_ms == 0,
    postgresql_where=TABLES[Table.ESCROW].c.closed_ms == 0,
)
_SELECTS = {
    name: sa.select(table).where(table.c.id.in_(sa.bindparam("ids", expanding=True))) for name, table in TABLES.items()
}


def _upsert(table: sa.Table, dialect: str) -> sa.Insert:
    insert = (postgresql_insert if dialect == "postgresql" else sqlite_insert)(table)
    values = {column.name: insert.excluded[column.name] for column in table.columns if column.name != "id"}
    return insert.on_conflict_do_update(index_elements=["id"], set_=values)


UPSERTS: dict[str, dict[Table, sa.Insert]] = {
    dialect: {name: _upsert(table, dialect) for name, table in TABLES.items()} for dialect in ("sqlite", "postgresql")
}


def _read(name: Table, values: Sequence[Any]) -> Row:
    if name is Table.PENDING:
        return _PENDING.decode(values[1])
    return ROWS[name](*values[1:])


def _written(key: RowKey, row: Row) -> dict[str, Any]:
    if isinstance(row, PendingRow):
        return {"id": key.id, "body": msgspec.msgpack.encode(row)}
    return {"id": key.id} | msgspec.structs.asdict(row)


def load(connection: sa.Connection, keys: Iterable[RowKey]) -> dict[RowKey, Row | None]:
    """The rows at `keys`, None for those that are not there."""
    wanted: dict[Table, list[bytes]] = {}
    found: dict[RowKey, Row | None] = {}
    for key in keys:
        wanted.setdefault(key.table, []).append(key.id)
        found[key] = None
    for name, ids in wanted.items():
        for start in range(0, len(ids), IDS_PER_SELECT):
            for values in connection.execute(_SELECTS[name], {"ids": ids[start : start + IDS_PER_SELECT]}):
                found[RowKey(name, values[0])] = _read(name, values)
    return found


def load_all(connection: sa.Connection) -> dict[RowKey, Row]:
    """Every row."""
    return {
        RowKey(name, values[0]): _read(name, values)
        for name, table in TABLES.items()
        for values in connection.execute(sa.select(table))
    }


def save(connection: sa.Connection, changed: Mapping[RowKey, Row]) -> None:
    """Write rows, new or changed."""
    batches: dict[Table, list[dict[str, Any]]] = {}
    for key, row in changed.items():
        batches.setdefault(key.table, []).append(_written(key, row))
    for name, batch in batches.items():
        connection.execute(UPSERTS[connection.dialect.name][name], batch)


def append_journal(connection: sa.Connection, entries: Sequence[tuple[int, str, Move]]) -> None:
    """Write double entries: when, because of what, and the move."""
    if entries:
        connection.execute(
            JOURNAL.insert(),
            [
                {
                    "at_ms": at_ms,
                    "cause": cause,
                    "debit_place": move.debit.place.name,
                    "debit_id": move.debit.id,
                    "credit_place": move.credit.place.name,
                    "credit_id": move.credit.id,
                    "amount_ucr": move.amount_ucr,
                }
                for at_ms, cause, move in entries
            ],
        )


def charged_leases(connection: sa.Connection, account: bytes) -> tuple[bytes, ...]:
    """The leases under which something is charged against the account. A pass over all verdicts."""
    verdict = TABLES[Table.VERDICT].c
    return _leases(connection, verdict.accused == account, verdict.locked_ucr > 0)


def appealed_leases(connection: sa.Connection) -> tuple[bytes, ...]:
    """The leases whose charges wait for the referee. A pass over all verdicts."""
    return _leases(connection, TABLES[Table.VERDICT].c.stage == int(ChargeStage.APPEALED))


def _leases(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> tuple[bytes, ...]:
    verdict = TABLES[Table.VERDICT].c
    query = sa.select(verdict.lease).where(*where).order_by(verdict.lease)
    return tuple(bytes(lease) for (lease,) in connection.execute(query))


def add_up(connection: sa.Connection) -> tuple[int, int, int, int]:
    """Minted, the sum of all money that is there, the number of accounts, of open escrows."""
    pool, account, escrow = TABLES[Table.POOL].c, TABLES[Table.ACCOUNT].c, TABLES[Table.ESCROW].c
    verdict = TABLES[Table.VERDICT].c

    def ask(*columns: sa.ColumnElement[Any], where: sa.ColumnElement[bool] | None = None) -> list[int]:
        query = sa.select(*columns) if where is None else sa.select(*columns).where(where)
        return [int(value or 0) for value in connection.execute(query).one()]

    minted, purse = ask(sa.func.sum(pool.minted_ucr), sa.func.sum(pool.purse_ucr))
    money = account.available_ucr + account.stake_ucr + account.unbonding_ucr + account.held_ucr
    owned, accounts = ask(sa.func.sum(money), sa.func.count(account.id))
    locked, escrows = ask(
        sa.func.sum(escrow.locked_ucr + escrow.bond_ucr), sa.func.count(escrow.id), where=escrow.closed_ms == 0
    )  # fmt: skip
    (charged,) = ask(sa.func.sum(verdict.locked_ucr), where=verdict.locked_ucr > 0)
    return minted, purse + owned + locked + charged, accounts, escrows


def prepare(connection: sa.Connection, bank: bytes) -> None:
    """Make the tables in an empty database, or bring those of an older version up. Raises UsageError E1306 for the
    books of another bank or a version that is not known."""
    METADATA.create_all(connection)
    wanted = {"schema": str(SCHEMA_VERSION), "bank": bank.hex()}
    found: dict[str, str] = dict(iter(connection.execute(sa.select(META.c.key, META.c.value))))
    if not found:
        connection.execute(META.insert(), [{"key": key, "value": value} for key, value in wanted.items()])
    elif found in (wanted | {"schema": "1"}, wanted | {"schema": "2"}):
        _upgrade(connection)
        connection.execute(META.update().where(META.c.key == "schema"), {"value": wanted["schema"]})
    elif found != wanted:
        what = f"These are books of bank 0x{found.get('bank')} in version {found.get('schema')}."
        raise fail("E1306", f"{what} This node is bank 0x{bank.hex()} and writes version {SCHEMA_VERSION}.")


def _upgrade(connection: sa.Connection) -> None:
    quote = connection.dialect.identifier_preparer.quote
    nothing: dict[object, str] = {int: "0", bytes: "x''" if connection.dialect.name == "sqlite" else "''"}
    for name, table in TABLES.items():
        there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in (column for column in table.columns if column.name not in there):
            kind = column.type.compile(connection.dialect)
            default = nothing[get_type_hints(ROWS[name])[column.name]]
            words = f"{quote(column.name)} {kind} NOT NULL DEFAULT {default}"
            connection.exec_driver_sql(f"ALTER TABLE {quote(table.name)} ADD COLUMN {words}")
    save(connection, {STAKERS: stakers_of(load_all(connection).values())})
