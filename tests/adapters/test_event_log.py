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
