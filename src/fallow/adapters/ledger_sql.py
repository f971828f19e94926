"""The Ledger port on SQL: SQLite by default, PostgreSQL when a pool outgrows a machine.

One thread owns the database. It takes all requests that wait (at most `MAX_BATCH`), loads the rows that they touch at
once, runs the rules on them one after the other, and writes everything in one transaction; only then are the answers
given. So a crash at any moment leaves each request done with its answer kept, or not done at all, and many requests
share one flush to disk. SQLite runs in WAL mode with synchronous=FULL: a committed transaction survives a power cut.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError

from fallow.adapters import ledger_tables as tables
from fallow.errors import FallowError, fail
from fallow.ports import Entropy
from fallow.rules.escrow import (
    AccountRow,
    EscrowRow,
    Facts,
    Move,
    NodeRow,
    PendingRow,
    PoolTerms,
    Refused,
    Row,
    RowKey,
    VerdictRow,
    account_key,
    balance_of,
    charge_of,
    escrow_key,
    examine,
    node_key,
    pending_key,
    refuse,
    related,
    settlement_of,
    touched,
    transition,
    verdict_key,
)
from fallow.wire.documents import Settlement, Signed
from fallow.wire.ledger import BalanceOf, Books, DrawAuditors, OpenCharge
from fallow.wire.messages import Message

T = TypeVar("T")

MAX_BATCH = 512
MAX_WAITING = 8192
"""More requests than this wait for nobody: they are refused with E1803 at once."""
BUSY_MS = 5_000
"""How long SQLite waits for another program (a backup) that holds the file."""
TRIES = 3
SEED_BYTES = 32
POSTGRES_DRIVER = "postgresql+psycopg"
_POSTGRES_LOCK = 0x66616C6C6F77
"""An advisory lock: two banks on one PostgreSQL take turns, as SQLite's BEGIN IMMEDIATE makes them."""


class _Ask(NamedTuple):
    """A request that passed `examine`, waiting for its turn."""

    request: Message
    caller: bytes
    now_ms: int
    facts: Facts
    answer: Future[Message]


class _Look(NamedTuple):
    """A question that changes nothing."""

    question: Callable[[sa.Connection], Any]
    answer: Future[Any]


_Job = _Ask | _Look


def sqlite_url(path: Path) -> str:
    """The database URL of a file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


class SqlLedger:
    """One pool's books at `url`. `seal` signs settlements with the bank's account key. Raises UsageError E1306 for
    another bank's books, E1001 for what is no URL of a database that can be used, UnavailableError E1305 when it cannot
    be opened. `close` it."""

    def __init__(self, url: str, terms: PoolTerms, entropy: Entropy, seal: Callable[[Settlement], Signed]) -> None:
        self.terms = terms
        self._entropy, self._seal = entropy, seal
        self._engine = _engine(url)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._closed = False
        try:
            with self._engine.begin() as connection:
                tables.prepare(connection, terms.bank)
        except DBAPIError as error:
            self._engine.dispose()
            raise _unavailable(error) from error
        except FallowError:
            self._engine.dispose()
            raise
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._thread.start()

    async def apply(self, request: Message, caller: bytes, now_ms: int) -> Message:
        """One LedgerRequest; durable before it returns. TypeError for any other message, UnavailableError E1305 when
        the database fails (whether it took effect is then unknown: ask again), E1803 when too many wait."""
        seed = self._entropy.draw(SEED_BYTES) if isinstance(request, DrawAuditors) else b""
        facts = examine(request, self.terms.bank, seed)
        if isinstance(facts, Refused):
            return refuse(facts)
        answer: Future[Message] = Future()
        self._enqueue(_Ask(request, caller, now_ms, facts, answer))
        return await asyncio.wrap_future(answer)

    async def balance(self, account: bytes, now_ms: int = 0) -> BalanceOf:
        """What `account` has; zeros for one that nobody opened."""
        keys = (account_key(account), pending_key(account))
        rows = await self._look(lambda connection: tables.load(connection, keys))
        row, pending = rows[keys[0]], rows[keys[1]]
        assert row is None or isinstance(row, AccountRow)
        assert pending is None or isinstance(pending, PendingRow)
        charged: tuple[bytes, ...] = ()
        if row is not None and row.charged_ucr:
            charged = await self._look(lambda connection: tables.charged_leases(connection, account))
        return balance_of(account, row, pending, now_ms, charged)

    async def speaker(self, node: bytes, now_ms: int) -> bytes | None:
        """The account that `node` speaks for at `now_ms`."""
        key = node_key(node)
        row = (await self._look(lambda connection: tables.load(connection, (key,))))[key]
        return row.account if isinstance(row, NodeRow) and now_ms < row.expires_ms else None

    async def settlement(self, lease: bytes) -> Signed | None:
        """The bank's signed word on a lease; None for one that was never opened here."""
        key = escrow_key(lease)
        row = (await self._look(lambda connection: tables.load(connection, (key,))))[key]
        return self._seal(settlement_of(row)) if isinstance(row, EscrowRow) else None

    async def charge(self, lease: bytes) -> OpenCharge | None:
        """The charge under a lease that is not decided yet."""
        return await self._look(lambda connection: _charge(connection, lease))

    async def appeals(self) -> tuple[bytes, ...]:
        """The leases whose charges wait for the referee."""
        return await self._look(tables.appealed_leases)

    async def books(self) -> Books:
        """The whole in one line. Costs a pass over accounts and open escrows."""
        return Books(self.terms.bank, *await self._look(tables.add_up))

    async def dump(self) -> dict[RowKey, Row]:
        """All rows, to compare homes with each other and to check every invariant. Costs a pass over everything."""
        return await self._look(tables.load_all)

    def close(self) -> None:
        """Finish what was accepted and let go of the database. Waits for it."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()
            self._engine.dispose()

    async def _look(self, question: Callable[[sa.Connection], T]) -> T:
        answer: Future[T] = Future()
        self._enqueue(_Look(question, answer))
        return await asyncio.wrap_future(answer)

    def _enqueue(self, job: _Job) -> None:
        if self._closed:
            raise fail("E1305", "The bank is shutting down.")
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise fail("E1803", "The bank has too many requests waiting.") from None

    # the thread that owns the database ------------------------------------------------------------------------------

    def _serve(self) -> None:
        going = True
        while going:
            batch: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                if job.answer.set_running_or_notify_cancel():  # nobody waits for a cancelled one, so it is not begun
                    batch.append(job)
                if len(batch) >= MAX_BATCH or self._jobs.empty():
                    break
                job = self._jobs.get()
            going = job is not None
            if batch:
                self._answer(batch)

    def _answer(self, batch: list[_Job]) -> None:
        """Carry out a batch and give the answers, all after the commit. A database that is busy is tried again: the
        transaction was rolled back, so nothing happens twice."""
        answers: list[Any] = []
        for attempt in range(1, TRIES + 1):
            try:
                with self._engine.begin() as connection:
                    answers = self._carry_out(connection, batch)
                break
            except DBAPIError as problem:
                if attempt == TRIES:
                    answers = [_unavailable(problem) for _ in batch]
            except Exception as problem:  # noqa: BLE001 - the thread's boundary: a dead thread would hang every caller
                error = fail("E9001", f"The ledger failed: {problem!r}"[:300])
                error.__cause__ = problem
                answers = [error for _ in batch]
                break
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)

    def _carry_out(self, connection: sa.Connection, batch: list[_Job]) -> list[Any]:
        """-> the answers, in order. Looks see the state before the batch. A request on which the rules themselves fail
        (our bug) changes nothing and does not keep the others from being done."""
        asks = [job for job in batch if isinstance(job, _Ask)]
        rows: dict[RowKey, Row | None] = {}
        _gather(connection, {key for ask in asks for key in touched(ask.request, ask.caller, ask.facts)}, rows)
        changed: dict[RowKey, Row] = {}
        journal: list[tuple[int, str, Move]] = []
        answers: list[Any] = []
        for job in batch:
            if isinstance(job, _Look):
                answers.append(job.question(connection))
                continue
            try:
                outcome = self._transition(connection, rows, job)
            except (AssertionError, LookupError, TypeError) as problem:
                answers.append(_broken(problem))
                continue
            rows |= outcome.changed
            changed |= outcome.changed
            journal += [(job.now_ms, type(job.request).__name__, move) for move in outcome.moves]
            answers.append(outcome.answer)
        tables.save(connection, changed)
        tables.append_journal(connection, journal)
        return answers

    def _transition(self, connection: sa.Connection, rows: dict[RowKey, Row | None], job: _Ask) -> Any:
        mine = _gather(connection, touched(job.request, job.caller, job.facts), rows)
        return transition(mine, job.request, job.caller, job.now_ms, job.facts, self.terms)


def _gather(connection: sa.Connection, keys: set[RowKey], rows: dict[RowKey, Row | None]) -> dict[RowKey, Row | None]:
    """The rows at `keys` and all that they name, as `rows` has them; loads what is missing there. An escrow opened
    earlier in a batch names rows as well."""
    mine: dict[RowKey, Row | None] = {}
    while keys:
        if missing := keys - rows.keys():
            rows |= tables.load(connection, missing)
        mine |= {key: rows[key] for key in keys}
        keys = related(mine.values()) - mine.keys()
    return mine


def _charge(connection: sa.Connection, lease: bytes) -> OpenCharge | None:
    at = escrow_key(lease)
    escrow = tables.load(connection, (at,))[at]
    at = verdict_key(lease, escrow.ground if isinstance(escrow, EscrowRow) else b"")
    row = tables.load(connection, (at,))[at]
    return charge_of(row) if isinstance(row, VerdictRow) and row.is_open else None


def _broken(problem: Exception) -> FallowError:
    error = fail("E9001", f"The ledger's rules failed and nothing was changed: {problem!r}"[:300])
    error.__cause__ = problem
    return error


def _unavailable(problem: DBAPIError) -> FallowError:
    return fail("E1305", "The bank cannot read or write its books.", cause=str(problem.orig)[:200])


def _engine(url: str) -> sa.Engine:
    try:
        return _make_engine(url)
    except ArgumentError:
        raise fail("E1001", "The ledger's URL cannot be read.", cause="postgresql://USER@HOST/DATABASE") from None
    except ModuleNotFoundError as error:
        cause = f"{error.name} is missing: pip install 'fallow[postgres]'"
        raise fail("E1001", "This database's driver is not installed.", cause=cause) from None


def _make_engine(url: str) -> sa.Engine:
    if url.startswith("sqlite"):
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    else:
        engine = sa.create_engine(_postgres_url(url), pool_pre_ping=True)
        event.listen(engine, "begin", _take_turns)
    return engine


def _postgres_url(url: str) -> sa.URL:
    """With the driver that we install: SQLAlchemy would take another one that few have."""
    found = sa.make_url(url)
    if found.drivername not in ("postgres", "postgresql", POSTGRES_DRIVER):
        raise fail(
            "E1001", f"The books cannot be kept in {found.drivername}.", cause="SQLite and PostgreSQL can hold them."
        )
    return found.set(drivername=POSTGRES_DRIVER)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions of its own, and too late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _take_turns(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
