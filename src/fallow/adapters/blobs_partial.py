"""A blob on its way into the store on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fallow.adapters.blobs_files import disk_errors, write_all
from fallow.adapters.blobs_index import StoredBlob
from fallow.errors import FallowError, fail
from fallow.units import MIB, BlobId
from fallow.wire.blob_id import CHUNK_BYTES, chunk_count, chunk_hash, chunk_length

SYNC_EVERY_BYTES = 32 * MIB


class Home(Protocol):
    """The store that a partial belongs to."""

    def has(self, blob: BlobId) -> bool: ...

    def take_partial(self, partial: DiskPartial, fd: int) -> None:
        """Turn a complete partial into a blob, taking its file away."""
        ...

    def let_go(self, partial: DiskPartial) -> None:
        """The partial is no longer open."""
        ...


class DiskPartial:
    """`ports.Partial`: a sparse file of the blob's size. Which chunks it holds is written nowhere; the bytes themselves
    say it, so there is nothing that could disagree with them after a crash."""

    def __init__(self, store: Home, blob: BlobId, entry: StoredBlob, path: Path) -> None:
        self.blob, self.entry, self.path = blob, entry, path
        self._store = store
        self._lock = threading.Lock()
        self._here = bytearray(len(entry.chunks))
        self._unsynced_bytes = 0
        self._sync: threading.Thread | None = None
        self._sync_error: OSError | None = None
        self._users = 1  # writes under way, and the owner; the last one closes the file
        self._open = True
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def recheck(self) -> None:
        """Find out which chunks are here already."""
        if self._store.has(self.blob):
            self._here = bytearray(b"\1" * len(self.entry.chunks))
            return
        if os.fstat(self._fd).st_size > self.entry.size_bytes:
            os.ftruncate(self._fd, self.entry.size_bytes)
        at = 0
        while at < self.entry.size_bytes:
            try:
                at = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                return
            index = at // CHUNK_BYTES
            data = os.pread(self._fd, chunk_length(self.entry.size_bytes, index), index * CHUNK_BYTES)
            self._here[index] = chunk_hash(data) == self.entry.chunks[index]
            at = (index + 1) * CHUNK_BYTES

    def missing(self) -> Sequence[int]:
        with self._lock:
            return [index for index, here in enumerate(self._here) if not here]

    def write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        size = self.entry.size_bytes
        if not 0 <= index < chunk_count(size) or len(data) != chunk_length(size, index):
            raise fail("E1601", f"{len(data)} bytes for chunk {index} of blob {self.blob.hex()}")
        if chunk_hash(data) != self.entry.chunks[index]:
            raise fail("E1601", f"chunk {index} of blob {self.blob.hex()} does not match its hash")
        with self._using() as wanted:
            if not wanted or self._here[index]:
                return
            try:
                with disk_errors():
                    write_all(self._fd, data, index * CHUNK_BYTES)
                    self._sync_now_and_then(len(data))
            except FallowError:
                self._discard()
                raise
            self._here[index] = 1

    def commit(self) -> None:
        if self._sync is not None:
            self._sync.join()
        with self._using() as wanted:
            assert wanted, "a closed partial cannot be committed"
            assert all(self._here), "chunks are missing"
            try:
                with disk_errors():
                    if self._sync_error is not None:
                        raise self._sync_error
                self._store.take_partial(self, self._fd)
            except FallowError:
                self._discard()
                raise
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._store.let_go(self)
        self._release()

    @contextmanager
    def _using(self) -> Generator[bool]:
        """Keep the file open for the length of the block. A write may still run in its thread after the fetch that
        started it was cancelled and closed the partial; it must not meet a file descriptor that now means another."""
        with self._lock:
            wanted = self._open
            self._users += wanted
        try:
            yield wanted
        finally:
            if wanted:
                self._release()

    def _release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self._fd)

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def _sync_now_and_then(self, written_bytes: int) -> None:
        """Have the disk take what came in while more comes in."""
        with self._lock:
            self._unsynced_bytes += written_bytes
            if self._unsynced_bytes < SYNC_EVERY_BYTES or (self._sync is not None and self._sync.is_alive()):
                return
            self._unsynced_bytes = 0
            self._users += 1
            self._sync = threading.Thread(target=self._sync_behind, name="blob sync", daemon=True)
        self._sync.start()

    def _sync_behind(self) -> None:
        """An error is kept for `commit`: the kernel tells each one only once, so a later sync would succeed over a
        hole."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._sync_error = error
        finally:
            self._release()
