from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import UsageError

WRITER = """
import sys
from pathlib import Path
from fallow.adapters.event_log import SqliteEventLog

log = SqliteEventLog(Path(sys.argv[1]))
number = log.append("s", [])
while True:
    batch = [b"%d of %d" % (i, number) for i in range(3)]
    number = log.append("s", batch)
    log.put("last", str(number).encode())
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 5, 23])
def test_kill_9_in_mid_append_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "log.db"
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = 0
            for _ in range(lines):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        log = SqliteEventLog(path)
        numbers = [number for number, _ in log.read("s")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= acknowledged
        assert len(numbers) % 3 == 0, "a batch was torn"
        assert int(log.get("last") or b"0") >= acknowledged
        log.close()


CUTTER = """
import sys
from pathlib import Path
from fallow.adapters.event_log import SqliteEventLog

log = SqliteEventLog(Path(sys.argv[1]))
number = log.append("s", [])
while True:
    number = log.append("s", [b"%d" % (number + 1 + i) for i in range(3)])
    print(number, flush=True)
    log.cut("s", number - 1, {"snapshot": b"%d" % (number - 1), f"job/{number}": b""}, [f"job/{number - 3}"])
"""


@pytest.mark.parametrize("lines", [1, 2, 7, 20])
def test_kill_9_in_mid_cut_leaves_a_snapshot_and_exactly_what_came_after_it(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "log.db"
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", CUTTER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = 0
            for _ in range(lines):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        log = SqliteEventLog(path)
        last, snapshot = log.append("s", []), int(log.get("snapshot") or b"0")
        assert list(log.read("s")) == [(n, b"%d" % n) for n in range(snapshot + 1, last + 1)]
        assert last >= acknowledged
        assert not snapshot or f"job/{snapshot + 1}" in log.keys("job/")
        log.close()


def test_a_file_that_is_mostly_unused_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.db"
    monkeypatch.setattr("fallow.adapters.event_log.SPARE_BYTES", 1 << 20)
    log = SqliteEventLog(path)
    log.append("s", [b"x" * 100_000] * 40)
    log.append("s", [b"last"])
    log.cut("s", 40, {"snapshot": b"of 40"})
    log.close()
    assert path.stat().st_size > 4_000_000
    log = SqliteEventLog(path)
    assert list(log.read("s")) == [(41, b"last")]
    log.close()
    assert path.stat().st_size < 200_000


def test_a_file_of_the_version_before_cuts_goes_on_and_is_not_given_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE events (stream TEXT, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (stream, number))")
    old.execute("CREATE TABLE cells (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
    old.execute("INSERT INTO events VALUES ('s', 1, x'61')")
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    log = SqliteEventLog(path)
    assert log.append("s", [b"b"]) == 2
    log.cut("s", 1, {})
    (version,) = log._db.execute("PRAGMA user_version").fetchone()
    assert (list(log.read("s")), version) == ([(2, b"b")], 2)
    log.close()


def test_commits_are_flushed_to_disk(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    (synchronous,) = log._db.execute("PRAGMA synchronous").fetchone()
    (mode,) = log._db.execute("PRAGMA journal_mode").fetchone()
    log.close()
    assert (synchronous, mode) == (2, "wal")


def test_threads_may_share_a_log(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    threads = [
        threading.Thread(target=lambda: [log.append("s", [b"x"]) for _ in range(20)], daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [number for number, _ in log.read("s")] == list(range(1, 81))
    log.close()


def test_a_file_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    database = sqlite3.connect(newer)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(UsageError, match="another version"):
        SqliteEventLog(newer)
    (tmp_path / "text.db").write_text("this is no database, but long enough to look like one" * 20)
    with pytest.raises(UsageError, match="cannot be used"):
        SqliteEventLog(tmp_path / "text.db")
    with pytest.raises(UsageError, match="cannot be used"):
        SqliteEventLog(tmp_path / "no such folder" / "log.db")


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    log.close()
    log.close()
    with pytest.raises(UsageError):
        log.get("x")
