"""What only the SQL home must do: survive kill -9, failing disks and broken rules, and refuse foreign files."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import postgres
from tests.ledger_world import (
    ALICE,
    BOB,
    NOW,
    PROVIDER,
    REQUESTER,
    TERMS,
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

from fallow.adapters import ledger_sql
from fallow.adapters.ledger_sql import SqlLedger, sqlite_url
from fallow.errors import FallowError, InternalError, UnavailableError, UsageError
from fallow.rules.escrow import Table, faults
from fallow.wire.ledger import DrawAuditors, LedgerDone, Redeem, SlashEquivocation, Transfer

ROOT = Path(__file__).resolve().parents[2]
LEASE = lease_of()

# Pays one ucr at a time in two ways, from the beginning at every start, and says what was acknowledged.
BANK_LOOP = """
import asyncio, sys
from pathlib import Path
from fallow.adapters.ledger_sql import SqlLedger, sqlite_url
from fallow.wire.ledger import LedgerDone, Redeem, Transfer
from tests.ledger_world import *

async def main():
    home = SqlLedger(sqlite_url(Path(sys.argv[1])), TERMS, Dice(), seal)
    lease = lease_of()
    for number in range(1, 401):
        requests = [
            (Transfer(word("kill", number), BOB.account, 1), ALICE),
            (Redeem(voucher(lease, number)), PROVIDER),
            (Transfer(word("kill too", number), BOB.account, 1), ALICE),
        ]
        answers = await asyncio.gather(*(home.apply(r, who.account, NOW) for r, who in requests))
        assert all(isinstance(answer, LedgerDone) for answer in answers), answers
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def home(path: Path) -> Iterator[SqlLedger]:
    made = open_home(path)
    yield made
    made.close()


def open_home(path: Path) -> SqlLedger:
    return SqlLedger(sqlite_url(path), TERMS, Dice(), seal)


def test_kill_9_pays_nothing_twice_and_loses_nothing(path: Path) -> None:
    home = open_home(path)
    pool = Pool(home)
    stock(pool)
    pool.does(open_request(LEASE), REQUESTER)
    home.close()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    acknowledged = 0
    for lines in (1, 5, 14):
        with subprocess.Popen(
            [sys.executable, "-c", BANK_LOOP, str(path)], stdout=subprocess.PIPE, env=environment
        ) as bank:
            assert bank.stdout is not None
            for _ in range(lines):
                acknowledged = max(acknowledged, int(bank.stdout.readline()))
            bank.send_signal(signal.SIGKILL)
            rest = bank.stdout.read().split(b"\n")[:-1]
            acknowledged = max([acknowledged, *map(int, rest)])
        home = open_home(path)
        rows = run(home.dump())
        assert faults(rows) == []
        paid = Pool(home).escrow(LEASE).paid_ucr
        transfers = sum(1 for key in rows if key.table is Table.DONE and key.id.startswith(ALICE.account))
        received = run(home.balance(BOB.account)).available_ucr - 1_000
        assert received == transfers - 1, "each transfer kept its answer (and the deposit kept one)"
        assert acknowledged <= paid <= acknowledged + 1
        assert 2 * acknowledged <= received <= 2 * acknowledged + 2
        home.close()


def test_everything_is_there_after_a_restart(path: Path) -> None:
    home = open_home(path)
    pool = Pool(home)
    stock(pool)
    pool.does(open_request(LEASE), REQUESTER)
    before = run(home.dump())
    home.close()
    home = open_home(path)
    assert run(home.dump()) == before
    home.close()


def test_the_journal_explains_every_balance(home: SqlLedger, path: Path) -> None:
    pool = Pool(home)
    stock(pool)
    pool.does(open_request(LEASE), REQUESTER)
    pool.does(Redeem(voucher(LEASE, 40)), PROVIDER)
    with sqlite3.connect(path) as database:
        lines = database.execute("SELECT debit_place, debit_id, credit_place, credit_id, amount_ucr FROM journal")
        balances: dict[Any, int] = {}
        for debit_place, debit_id, credit_place, credit_id, amount in lines:
            balances[debit_place, debit_id] = balances.get((debit_place, debit_id), 0) - amount
            balances[credit_place, credit_id] = balances.get((credit_place, credit_id), 0) + amount
    database.close()
    assert balances["AVAILABLE", PROVIDER.account] == pool.balance(PROVIDER).available_ucr == 1_040
    assert balances["MINT", b""] == -run(home.books()).minted_ucr
    assert sum(balances.values()) == 0


def test_commits_are_flushed_to_disk(home: SqlLedger) -> None:
    with home._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_file_of_another_bank_or_version_is_refused(path: Path) -> None:
    open_home(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.close()
    with pytest.raises(UsageError, match="version 99"):
        open_home(path)
    path.write_text("this is no database, but long enough to look like one" * 20)
    with pytest.raises(UnavailableError):
        open_home(path)


NEW = {
    "accounts": ("tied_ucr", "charged_ucr", "pledged_ucr", "pledged_until_ms", "fined_ucr"),
    "escrows": ("charged_ucr", "ground"),
    "draws": ("drawn",),
    "verdicts": ("accused", "locked_ucr", "worth_ucr", "due_ms", "stage", "pledges"),
}
"""The columns that books of version 1 lack."""


@pytest.mark.parametrize("server", [False, True], ids=["sqlite", "postgres"])
def test_books_of_version_1_are_brought_up(path: Path, server: bool) -> None:
    url = postgres.books() if server else sqlite_url(path)
    home = SqlLedger(url, TERMS, Dice(), seal)
    pool = Pool(home)
    stock(pool)
    pool.does(open_request(LEASE), REQUESTER)
    pool.ask(DrawAuditors(claim(LEASE)), REQUESTER)
    pool.does(SlashEquivocation(lease_id(LEASE), claim(LEASE), claim(LEASE, root=word("other"))), REQUESTER)
    before, books = run(home.dump()), run(home.books())
    with home._engine.begin() as connection:
        for table, columns in NEW.items():
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.exec_driver_sql("DROP TABLE stakers")
        connection.exec_driver_sql("UPDATE meta SET value = '1' WHERE key = 'schema'")
    home.close()
    for _ in range(2):
        home = SqlLedger(url, TERMS, Dice(), seal)
        after = run(home.dump())
        lost = {"drawn": b"", "accused": b""}
        assert after == {
            key: msgspec.structs.replace(row, **{name: lost[name] for name in lost if hasattr(row, name)})
            for key, row in before.items()
        }
        assert run(home.books()) == books
        assert faults(after) == []
        home.close()


def test_a_locked_file_is_an_error_and_not_a_payment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_sql, "BUSY_MS", 10)
    home = open_home(path)
    pool = Pool(home)
    stock(pool)
    request = Transfer(word("locked"), ALICE.account, 5)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as caught:
        pool.ask(request, REQUESTER)
    assert caught.value.code == "E1305"
    blocker.execute("ROLLBACK")
    blocker.close()
    pool.does(request, REQUESTER)
    assert pool.balance(REQUESTER).available_ucr == 995
    home.close()


def test_rules_that_break_change_nothing_and_others_go_on(home: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one request's rules must not take the bank down, or half of a batch with it."""
    pool = Pool(home)
    stock(pool)
    real = ledger_sql.transition

    def breaks(rows: Any, request: Any, *rest: Any) -> Any:
        if isinstance(request, Redeem):
            raise AssertionError("a bug")
        return real(rows, request, *rest)

    monkeypatch.setattr(ledger_sql, "transition", breaks)

    async def both() -> list[Any]:
        asks = [
            home.apply(Transfer(word("1"), ALICE.account, 5), REQUESTER.account, NOW),
            home.apply(Redeem(voucher(LEASE, 40)), PROVIDER.account, NOW),
            home.apply(Transfer(word("2"), ALICE.account, 5), REQUESTER.account, NOW),
        ]
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = run(both())
    assert [type(answer) for answer in answers] == [LedgerDone, InternalError, LedgerDone]
    assert pool.balance(REQUESTER).available_ucr == 990


def test_a_failure_that_nobody_foresaw_answers_everybody(home: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that owns the database must not die: its callers would wait forever."""
    pool = Pool(home)
    stock(pool)

    def explode(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as broken:
        broken.setattr(ledger_sql.tables, "save", explode)
        with pytest.raises(InternalError, match="unforeseen"):
            pool.ask(Transfer(word("1"), ALICE.account, 5), REQUESTER)
    assert pool.balance(REQUESTER).available_ucr == 1_000
    pool.does(Transfer(word("1"), ALICE.account, 5), REQUESTER)


def test_a_flood_is_refused_at_the_door(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_sql, "MAX_WAITING", 3)
    home = open_home(path)
    pool = Pool(home)
    stock(pool)
    hold, held = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        held.set()
        hold.wait()

    async def flood() -> list[Any]:
        slow = asyncio.create_task(home._look(wait))
        await asyncio.to_thread(held.wait)
        asks = [
            home.apply(Transfer(word("flood", number), ALICE.account, 1), REQUESTER.account, NOW) for number in range(9)
        ]
        waiting = asyncio.gather(*asks, return_exceptions=True)
        await asyncio.sleep(0)
        hold.set()
        await slow
        return await waiting

    answers = run(flood())
    assert sum(isinstance(answer, LedgerDone) for answer in answers) == 3
    assert {answer.code for answer in answers if isinstance(answer, FallowError)} == {"E1803"}
    assert pool.balance(REQUESTER).available_ucr == 997
    home.close()


def test_a_caller_that_leaves_does_not_disturb_the_others(home: SqlLedger) -> None:
    pool = Pool(home)
    stock(pool)

    async def impatient() -> None:
        for number in range(20):
            task = asyncio.create_task(
                home.apply(Transfer(word("leave", number), ALICE.account, 1), REQUESTER.account, NOW)
            )
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(impatient())
    left = pool.balance(REQUESTER).available_ucr
    assert 980 <= left <= 1_000
    for number in range(20):
        pool.does(Transfer(word("leave", number), ALICE.account, 1), REQUESTER)
    assert pool.balance(REQUESTER).available_ucr == 980
    assert pool.balance(BOB).available_ucr == 1_000


def test_a_closed_home_says_so(path: Path) -> None:
    home = open_home(path)
    home.close()
    home.close()
    with pytest.raises(UnavailableError):
        run(home.books())


@pytest.mark.parametrize("url", ["nonsense", "mysql://root@localhost/books", "postgresql+asyncpg://x@/y"])
def test_what_is_no_database_for_books_is_told(url: str) -> None:
    with pytest.raises(UsageError) as wrong:
        SqlLedger(url, TERMS, Dice(), seal)
    assert wrong.value.code == "E1001"


def test_a_postgresql_that_is_not_there_is_told() -> None:
    with pytest.raises(UnavailableError) as gone:
        SqlLedger("postgresql://fallow@/books?host=/no/such/folder", TERMS, Dice(), seal)
    assert gone.value.code == "E1305"


def test_two_banks_on_one_postgresql_take_turns() -> None:
    """The second process of a bank that was thought dead: what both write is as if one had written it all."""
    url = postgres.books()
    homes = [SqlLedger(url, TERMS, Dice(), seal) for _ in range(2)]
    pool = Pool(homes[0])
    stock(pool)

    async def both() -> list[Any]:
        grants = [(Transfer(word("turn", n), BOB.account, 1), homes[n % 2]) for n in range(40)]
        return list(await asyncio.gather(*(home.apply(request, ALICE.account, NOW) for request, home in grants)))

    before = run(homes[1].balance(BOB.account)).available_ucr
    assert all(isinstance(answer, LedgerDone) for answer in asyncio.run(both()))
    assert run(homes[0].balance(BOB.account)).available_ucr == before + 40
    assert faults(run(homes[1].dump())) == []
    for home in homes:
        home.close()
