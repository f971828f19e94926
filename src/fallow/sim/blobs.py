"""A blob store in memory that behaves like the one on disk, crashes and damage included."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from fallow.errors import FallowError, fail
from fallow.units import BlobId, format_size
from fallow.wire.blob_id import CHUNK_BYTES, blob_id, chunk_count, chunk_hash, chunk_hashes_of, chunk_length

P = ParamSpec("P")
R = TypeVar("R")


def _alone(method: Callable[Concatenate[MemoryBlobs, P], R]) -> Callable[Concatenate[MemoryBlobs, P], R]:
    """One thread at a time."""

    @wraps(method)
    def locked(self: MemoryBlobs, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            if self.generation != self.disk.generation:
                raise fail("E1602", "The machine died.")
            return method(self, *args, **kwargs)

    return locked


@dataclass
class Disk:
    """What outlives a crash of the store. `blobs` is in order of last use."""

    blobs: dict[BlobId, bytearray] = field(default_factory=dict[BlobId, bytearray])
    chunks: dict[BlobId, tuple[bytes, ...]] = field(default_factory=dict[BlobId, tuple[bytes, ...]])
    partials: dict[BlobId, dict[int, bytes]] = field(default_factory=dict[BlobId, dict[int, bytes]])
    pins: set[tuple[str, BlobId]] = field(default_factory=set[tuple[str, BlobId]])
    full: bool = False
    """Set it, and every write finds the disk full."""
    on_write: Callable[[], None] = lambda: None
    """Called before every write; the machine may die in it."""
    generation: int = 0

    def crash(self) -> None:
        """Stores that are open over it are dead from now on."""
        self.generation += 1


class MemoryBlobs:
    """`ports.Blobs` over a `Disk`. To crash and restart, make another one over the same disk."""

    def __init__(self, quota_bytes: int, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.generation = self.disk.generation
        self.lock = threading.RLock()
        self._quota_bytes = quota_bytes
        self._open: dict[BlobId, int] = {}
        self._folder: Path | None = None

    @_alone
    def has(self, blob: BlobId) -> bool:
        return blob in self.disk.blobs

    @_alone
    def size(self, blob: BlobId) -> int:
        return self._length(blob)

    @_alone
    def chunks(self, blob: BlobId) -> tuple[bytes, ...]:
        self._used(blob)
        return self.disk.chunks[blob]

    @_alone
    def put(self, data: bytes) -> BlobId:
        hashes = chunk_hashes_of(data)
        blob = blob_id(hashes, len(data))
        if not self._sound(blob):
            self._make_room(len(data))
            self._keep(blob, bytearray(data), hashes)
        return blob

    def put_file(self, path: Path) -> BlobId:
        if path.is_symlink() or not path.is_file():
            raise fail("E2003", f"{path} is not a regular file")
        return self.put(path.read_bytes())

    def take_file(self, path: Path) -> BlobId:
        blob = self.put_file(path)
        path.unlink()
        return blob

    @_alone
    def begin(self, blob: BlobId, size_bytes: int, chunks: Sequence[bytes]) -> MemoryPartial:
        try:
            genuine = blob_id(chunks, size_bytes) == blob
        except ValueError:
            genuine = False
        if not genuine:
            raise fail("E1601", f"size and chunk hashes do not belong to blob {blob.hex()}")
        assert blob not in self._open, "one partial per blob at a time"
        self._make_room(size_bytes, blob)
        self._open[blob] = size_bytes
        return MemoryPartial(self, blob, size_bytes, tuple(chunks))

    @_alone
    def read(self, blob: BlobId, offset: int, length_bytes: int) -> bytes:
        size = self._used(blob)
        start, end = max(0, offset), min(size, offset + length_bytes)
        if end <= start:
            return b""
        for index in range(start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1):
            self._check(blob, index)
        return bytes(self.disk.blobs[blob][start:end])

    @_alone
    def path(self, blob: BlobId) -> Path:
        data = self.read(blob, 0, self._length(blob))
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fallow-sim-blobs-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        file = self._folder / blob.hex()
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(0o444)
        return file

    @_alone
    def pin(self, blob: BlobId, owner: str) -> None:
        self._length(blob)
        self._write_check()
        self.disk.pins.add((owner, blob))

    @_alone
    def unpin(self, blob: BlobId, owner: str) -> None:
        self.disk.pins.discard((owner, blob))

    @_alone
    def hand_over(self, blobs: Iterable[BlobId], giver: str, taker: str) -> None:
        self._write_check()
        for blob in blobs:
            self.disk.pins.discard((giver, blob))
            if blob in self.disk.blobs:
                self.disk.pins.add((taker, blob))

    @_alone
    def unpin_all(self, owner: str) -> None:
        self.disk.pins -= {pin for pin in self.disk.pins if pin[0] == owner}

    @property
    def used_bytes(self) -> int:
        """What all complete blobs take."""
        return sum(map(len, self.disk.blobs.values()))

    @property
    def quota_bytes(self) -> int:
        return self._quota_bytes

    def close(self) -> None:
        """Nothing to let go of."""

    @_alone
    def damage(self, blob: BlobId, offset: int = 0) -> None:
        """Flip a bit of a stored blob behind the store's back."""
        self.disk.blobs[blob][offset] ^= 1

    # inside -----------------------------------------------------------------------------------------------------------

    def _length(self, blob: BlobId) -> int:
        if blob not in self.disk.blobs:
            raise fail("E1602", f"blob {blob.hex()} is not on this machine")
        return len(self.disk.blobs[blob])

    def _used(self, blob: BlobId) -> int:
        size = self._length(blob)
        self.disk.blobs[blob] = self.disk.blobs.pop(blob)
        return size

    def _sound(self, blob: BlobId) -> bool:
        try:
            for index in range(chunk_count(self._used(blob))):
                self._check(blob, index)
        except FallowError:
            return False
        return True

    def _check(self, blob: BlobId, index: int) -> None:
        data = self.disk.blobs[blob][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        if chunk_hash(data) != self.disk.chunks[blob][index]:
            self._remove(blob)
            raise fail("E1602", f"blob {blob.hex()} was damaged on this disk and has been dropped")

    def _remove(self, blob: BlobId) -> None:
        del self.disk.blobs[blob], self.disk.chunks[blob]

    def _write_check(self) -> None:
        self.disk.on_write()
        if self.disk.full:
            raise fail("E1603", "the disk is full: simulated")

    def _make_room(self, size_bytes: int, coming: BlobId | None = None) -> None:
        if size_bytes > self._quota_bytes:
            raise fail("E1603", f"{format_size(size_bytes)} are more than the store's quota")
        pinned = {blob for _, blob in self.disk.pins}
        evictable = [blob for blob in self.disk.blobs if blob not in pinned]
        idle = [blob for blob in self.disk.partials if blob not in self._open and blob != coming]
        while self._taken(coming) + size_bytes > self._quota_bytes:
            if evictable:
                self._remove(evictable.pop(0))
            elif idle:
                del self.disk.partials[idle.pop(0)]
            else:
                raise fail("E1603", f"there is no room for {format_size(size_bytes)}: the rest of the store is pinned")

    def _taken(self, coming: BlobId | None) -> int:
        idle = (part for blob, part in self.disk.partials.items() if blob not in self._open and blob != coming)
        return self.used_bytes + sum(self._open.values()) + sum(len(data) for part in idle for data in part.values())

    def _keep(self, blob: BlobId, data: bytearray, hashes: Sequence[bytes]) -> None:
        self._write_check()
        self.disk.blobs[blob], self.disk.chunks[blob] = data, tuple(hashes)

    # for MemoryPartial ------------------------------------------------------------------------------------------------

    @_alone
    def take_chunk(self, blob: BlobId, index: int, data: bytes) -> None:
        """Keep one verified chunk of a partial."""
        try:
            self._write_check()
        except FallowError:
            self.disk.partials.pop(blob, None)
            self.let_go(blob)
            raise
        self.disk.partials.setdefault(blob, {})[index] = data

    @_alone
    def take_partial(self, blob: BlobId, hashes: Sequence[bytes]) -> None:
        """Turn a complete partial into a blob."""
        parts = self.disk.partials.pop(blob, {})
        self.let_go(blob)
        if blob not in self.disk.blobs:
            self._keep(blob, bytearray(b"".join(parts[index] for index in sorted(parts))), hashes)

    @_alone
    def let_go(self, blob: BlobId) -> None:
        """The partial is no longer open."""
        self._open.pop(blob, None)


class MemoryPartial:
    """`ports.Partial` over a MemoryBlobs."""

    def __init__(self, store: MemoryBlobs, blob: BlobId, size_bytes: int, hashes: tuple[bytes, ...]) -> None:
        self._store, self._blob, self._size_bytes, self._hashes = store, blob, size_bytes, hashes
        self._closed = False
        kept = store.disk.partials.get(blob, {})
        self._here = set(range(len(hashes))) if store.has(blob) else set(kept)

    def missing(self) -> Sequence[int]:
        return [index for index in range(len(self._hashes)) if index not in self._here]

    def write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        if not 0 <= index < len(self._hashes) or len(data) != chunk_length(self._size_bytes, index):
            raise fail("E1601", f"{len(data)} bytes for chunk {index} of blob {self._blob.hex()}")
        if chunk_hash(data) != self._hashes[index]:
            raise fail("E1601", f"chunk {index} of blob {self._blob.hex()} does not match its hash")
        if self._closed or index in self._here:
            return
        try:
            self._store.take_chunk(self._blob, index, bytes(data))
        except FallowError:
            self._closed = True
            raise
        self._here.add(index)

    def commit(self) -> None:
        assert not self._closed, "a closed partial cannot be committed"
        assert not self.missing(), "chunks are missing"
        self._closed = True
        self._store.take_partial(self._blob, self._hashes)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.let_go(self._blob)
