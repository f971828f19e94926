"""The EventLog port on SQLite: append-only streams and cells beside them, in one file.

WAL mode with synchronous=FULL: what `append` or `put` returned from survives `kill -9` and a power cut, and a batch is
there as a whole or not at all. One process owns the file; its threads may share the object.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fallow.errors import fail

SCHEMA_VERSION = 1
BUSY_S = 5.0
MAX_EVENT_BYTES = 64 << 20
"""Far above any event; a larger one is a mistake that would stall the node at every start."""

_LAST = "\U0010ffff"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS events (stream TEXT, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (stream, number))",
    "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class SqliteEventLog:
    """Opens or makes the file at `path`. Every method raises UnavailableError E1603 when the disk is full, and
    UsageError E1004 for any other failure of the file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _broken(path, error) from error
        self._path = path
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self._errors():
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {pragma}").close()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise fail("E1004", f"{self._path.name} was written by another version of Fallow ({version}).")
            with self._transaction():
                for statement in _SCHEMA:
                    self._db.execute(statement)

    def append(self, stream: str, events: Sequence[bytes], cells: Mapping[str, bytes] | None = None) -> int:
        """Add events to the end of `stream` and set `cells`, all or none, durably and with one flush. -> the number of
        the last event; appending nothing tells the number of the last one there is, 0 for an empty stream."""
        assert all(len(event) <= MAX_EVENT_BYTES for event in events), "an event that is far too large"
        with self._lock, self._errors():
            last = self._last_number(stream)
            if not events and not cells:
                return last
            rows = [(stream, number, event) for number, event in enumerate(events, last + 1)]
            with self._transaction():
                self._db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
                self._set(cells or {})
            self._last[stream] = last + len(rows)
            return last + len(rows)

    def read(self, stream: str, after: int = 0) -> Sequence[tuple[int, bytes]]:
        """The events after number `after`, in order."""
        query = "SELECT number, body FROM events WHERE stream = ? AND number > ? ORDER BY number"
        with self._lock, self._errors():
            return self._db.execute(query, (stream, after)).fetchall()

    def put(self, key: str, value: bytes) -> None:
        """Set a cell, durably."""
        self.put_all({key: value})

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        """Set several cells with one flush, all or none."""
        with self._lock, self._errors(), self._transaction():
            self._set(cells)

    def get(self, key: str) -> bytes | None:
        """A cell's value, None when it was never set."""
        with self._lock, self._errors():
            row = self._db.execute("SELECT value FROM cells WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def keys(self, prefix: str) -> Sequence[str]:
        """The cells whose key starts with `prefix`, in order of their keys' code points."""
        # A range of the index: no key of ours holds the last code point.
        query = "SELECT key FROM cells WHERE key >= ? AND key < ? ORDER BY key"
        with self._lock, self._errors():
            return [row[0] for row in self._db.execute(query, (prefix, prefix + _LAST))]

    def close(self) -> None:
        """Let go of the file; everything is on disk already. Closing twice is harmless."""
        with self._lock:
            self._db.close()

    def _set(self, cells: Mapping[str, bytes]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?)", list(cells.items()))

    def _last_number(self, stream: str) -> int:
        if stream not in self._last:
            query = "SELECT coalesce(max(number), 0) FROM events WHERE stream = ?"
            (self._last[stream],) = self._db.execute(query, (stream,)).fetchone()
        return self._last[stream]

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._last.clear()
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise fail("E1603", "The disk is full: the node cannot write its log.") from error
            raise _broken(self._path, error) from error


def _broken(path: Path, error: sqlite3.Error) -> Exception:
    return fail("E1004", f"The log {path.name} cannot be used: {error}.")
