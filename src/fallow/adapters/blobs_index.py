"""What the blob store on disk remembers beside the bytes: chunk hashes, pins, and which blob was used least recently.

One SQLite file in write-ahead mode; every change is synced before the call returns, since a lost pin would let the
collector take a blob that somebody counts on. When a blob was last used is only a hint for the collector: it is kept in
memory and written along with the next change. Not safe for threads: the store holds its lock around every call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fallow.units import BlobId

HASH_BYTES = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs(
    id BLOB PRIMARY KEY, size INTEGER NOT NULL, chunks BLOB NOT NULL, used INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS pins(owner TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY(owner, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_by_id ON pins(id);
"""


@dataclass(frozen=True)
class StoredBlob:
    """A blob that is here: its size and the hashes of its chunks."""

    size_bytes: int
    chunks: tuple[bytes, ...]


class BlobsIndex:
    """The index in the file at `path`, made if it is not there. Raises sqlite3.Error when the file is damaged or the
    disk is full."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            sums = self._db.execute("SELECT ifnull(max(used), 0), ifnull(sum(size), 0) FROM blobs").fetchone()
        except sqlite3.Error:
            self._db.close()
            raise
        self._uses: int = sums[0]
        self._used_bytes: int = sums[1]
        self._touched: dict[BlobId, int] = {}

    @property
    def used_bytes(self) -> int:
        """The sizes of all blobs together."""
        return self._used_bytes

    def get(self, blob: BlobId) -> StoredBlob | None:
        row = self._db.execute("SELECT size, chunks FROM blobs WHERE id = ?", (blob,)).fetchone()
        if row is None:
            return None
        size, joined = row
        return StoredBlob(size, tuple(joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)))

    def size(self, blob: BlobId) -> int | None:
        row = self._db.execute("SELECT size FROM blobs WHERE id = ?", (blob,)).fetchone()
        return None if row is None else row[0]

    def ids(self) -> list[tuple[BlobId, int]]:
        """Every blob and its size."""
        return [(BlobId(one), size) for one, size in self._db.execute("SELECT id, size FROM blobs")]

    def add(self, blob: BlobId, size_bytes: int, chunks: Sequence[bytes]) -> None:
        """Remember a blob as just used; it must not be here yet."""
        self._uses += 1
        self._change([("INSERT INTO blobs VALUES (?, ?, ?, ?)", (blob, size_bytes, b"".join(chunks), self._uses))])
        self._used_bytes += size_bytes

    def remove(self, blob: BlobId) -> None:
        """Forget a blob, though not its pins: they hold again as soon as it is back."""
        size = self.size(blob)
        if size is not None:
            self._touched.pop(blob, None)
            self._change([("DELETE FROM blobs WHERE id = ?", (blob,))])
            self._used_bytes -= size

    def touch(self, blob: BlobId) -> None:
        """Remember that it was used just now; lost in a crash."""
        self._uses += 1
        self._touched[blob] = self._uses

    def pin(self, blob: BlobId, owner: str) -> None:
        self._change([("INSERT OR IGNORE INTO pins VALUES (?, ?)", (owner, blob))])

    def unpin(self, blob: BlobId, owner: str) -> None:
        self._change([("DELETE FROM pins WHERE owner = ? AND id = ?", (owner, blob))])

    def hand_over(self, blobs: Iterable[BlobId], giver: str, taker: str) -> None:
        rows = list(blobs)
        self._change(
            [("DELETE FROM pins WHERE owner = ? AND id = ?", (giver, blob)) for blob in rows]
            + [("INSERT OR IGNORE INTO pins SELECT ?, id FROM blobs WHERE id = ?", (taker, blob)) for blob in rows]
        )

    def unpin_all(self, owner: str) -> None:
        self._change([("DELETE FROM pins WHERE owner = ?", (owner,))])

    def collectable(self) -> list[tuple[BlobId, int]]:
        """The blobs that nobody pinned and their sizes, least recently used first."""
        self._change([])
        query = (
            "SELECT id, size FROM blobs WHERE NOT EXISTS (SELECT 1 FROM pins WHERE pins.id = blobs.id) ORDER BY used"
        )
        return [(BlobId(one), size) for one, size in self._db.execute(query)]

    def close(self) -> None:
        self._change([])
        self._db.close()

    def _change(self, statements: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        uses = [(used, blob) for blob, used in self._touched.items()]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in statements:
                self._db.execute(statement, values)
            self._db.executemany("UPDATE blobs SET used = ? WHERE id = ?", uses)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._touched.clear()
