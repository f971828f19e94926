"""The EventLog port on SQLite: append-only streams, whose beginnings can be cut off, and cells beside them, in a file.

WAL mode with synchronous=FULL: what `append` or `put` returned from survives `kill -9` and a power cut, and a batch is
there as a whole or not at all. One process owns the file; its threads may share the object.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fallow.errors import fail

SCHEMA_VERSION = 2
KNOWN_VERSIONS = (0, 1, SCHEMA_VERSION)
"""0 is a file that is new; 1 had no `cuts`, and whoever knows only that must not read half a stream as a whole one."""
BUSY_S = 5.0
SPARE_BYTES = 64 << 20
"""A file with more unused space than this, and more than it uses, is made smaller when it is opened."""
MAX_EVENT_BYTES = 64 << 20
"""Far above any event; a larger one is a mistake that would stall the node at every start."""

_SPACE = ("page_size", "page_count", "freelist_count")
_LAST = "\U0010ffff"
_LAST_NUMBER = """SELECT coalesce(max(number), 0) FROM (
SELECT max(number) AS number FROM events WHERE stream = :stream UNION SELECT number FROM cuts WHERE stream = :stream)"""
_CUT = "INSERT INTO cuts VALUES (?, ?) ON CONFLICT (stream) DO UPDATE SET number = max(number, excluded.number)"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS events (stream TEXT, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (stream, number))",
    "CREATE TABLE IF NOT EXISTS cuts (stream TEXT PRIMARY KEY, number INTEGER NOT NULL)",
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
            if version not in KNOWN_VERSIONS:
                raise fail("E1004", f"{self._path.name} was written by another version of Fallow ({version}).")
            with self._transaction():
                for statement in _SCHEMA:
                    self._db.execute(statement)
            self._shrink()

    def _shrink(self) -> None:
        """Give back what cuts have freed. Where there is no room for the smaller file beside the larger one, the space
        is used for what comes."""
        size, pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _SPACE)
        if free * size > SPARE_BYTES and 2 * free > pages:
            with suppress(sqlite3.Error):
                self._db.execute("VACUUM").close()

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

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str] = ()) -> None:
        """Forget the events up to number `upto`, set `cells` and forget the cells `gone`, all or nothing, durably."""
        with self._lock, self._errors(), self._transaction():
            self._set(cells)
            self._db.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in gone])
            upto = min(upto, self._last_number(stream))
            self._db.execute("DELETE FROM events WHERE stream = ? AND number <= ?", (stream, upto))
            self._db.execute(_CUT, (stream, upto))

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
            (self._last[stream],) = self._db.execute(_LAST_NUMBER, {"stream": stream}).fetchone()
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
