"""The blob store on disk.

    lock            held by the one process that uses the store
    index.sqlite    chunk hashes, pins, last use (adapters/blobs_index.py)
    blobs/3f/9a...  content, mode 0444, named by its id
    partial/3f9a... what has come so far of a blob that is being fetched
    temp/           files that are being written; emptied at every start

Content is written to a temporary file, synced, made read-only, renamed to its name, and only then entered in the index:
a name under `blobs/` always stands for complete bytes, at whatever moment the process or the machine stops. What a
crash left between the rename and the index is hashed and taken in at the next start.

Every put and commit is synced before it returns, fetched blobs included: the source of an update may be gone by the
time the power comes back, and it was paid for. A big fetch is synced piecemeal as it comes in, so the wait at its end
is short.

Defends against: damaged sectors, torn files and programs that scribble over a file (every chunk is checked whenever it
is read; a damaged blob is dropped, so that it can be fetched again); a full disk (nothing half-written stays). Does not
defend against: the owner of the machine, or a process with the node's own rights that changes a file handed out by
`path` while it is in use."""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
import stat
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from fallow.adapters.blobs_files import Stamp, disk_errors, measure, stamp_of, sync_folder, take_hold, write_all
from fallow.adapters.blobs_index import BlobsIndex, StoredBlob
from fallow.adapters.blobs_partial import DiskPartial
from fallow.errors import FallowError, UnavailableError, fail
from fallow.units import BlobId, format_size
from fallow.wire.blob_id import CHUNK_BYTES, MAX_BLOB_BYTES, blob_id, chunk_hash, chunk_hashes_of, chunk_length

HASHING_THREADS = 2
"""Enough to hash faster than most disks read."""
_DAMAGE = {errno.ENOENT, errno.EIO, errno.ELOOP}


class DiskBlobs:
    """`ports.Blobs` in the folder `root`, with at most `quota_bytes` of content. One process at a time may hold a
    folder. Raises UsageError E1004 when the folder cannot be used."""

    def __init__(self, root: Path, quota_bytes: int) -> None:
        self._root, self._quota_bytes = root, quota_bytes
        self._lock = threading.RLock()
        self._names = itertools.count()
        self._incoming_bytes = 0  # announced by writes that have not ended yet
        self._checked: dict[BlobId, Stamp] = {}
        self._partials: dict[BlobId, DiskPartial] = {}
        self._hold = -1
        try:
            for name in ("blobs", "partial", "temp"):
                (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hold = take_hold(root)
            self._index = BlobsIndex(root / "index.sqlite")
        except (OSError, sqlite3.Error) as problem:
            if self._hold >= 0:
                os.close(self._hold)
            raise fail("E1004", f"the blob store in {root} cannot be used: {problem}") from problem
        self._recover()

    # reading ----------------------------------------------------------------------------------------------------------

    def has(self, blob: BlobId) -> bool:
        with self._lock:
            return self._index.size(blob) is not None

    def size(self, blob: BlobId) -> int:
        with self._lock:
            size = self._index.size(blob)
        if size is None:
            raise _not_here(blob)
        return size

    def chunks(self, blob: BlobId) -> tuple[bytes, ...]:
        return self._entry(blob).chunks

    def read(self, blob: BlobId, offset: int, length_bytes: int) -> bytes:
        """As the port says. Reads whole chunks, since only a whole chunk can be checked: many small reads cost a
        millisecond each."""
        entry = self._entry(blob)
        start, end = max(0, offset), min(entry.size_bytes, offset + length_bytes)
        if end <= start:
            return b""
        first, last = start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        with self._opened(blob) as fd:
            pieces = [self._read_chunk(fd, blob, entry, index) for index in range(first, last + 1)]
        if len(pieces) == 1:
            return pieces[0][start - first * CHUNK_BYTES : end - first * CHUNK_BYTES]
        pieces[-1] = pieces[-1][: end - last * CHUNK_BYTES]
        pieces[0] = pieces[0][start - first * CHUNK_BYTES :]
        return b"".join(pieces)

    def path(self, blob: BlobId) -> Path:
        """As the port says. The first call after a start, or after something touched the file, reads all of it."""
        entry = self._entry(blob)
        with self._opened(blob) as fd:
            stamp = stamp_of(fd)
            if self._checked.get(blob) != stamp:
                for index in range(len(entry.chunks)):
                    self._read_chunk(fd, blob, entry, index)
                if stamp[1] != entry.size_bytes:
                    raise self._drop(blob)
                self._checked[blob] = stamp
        return self._file(blob)

    @property
    def used_bytes(self) -> int:
        """What all complete blobs take."""
        with self._lock:
            return self._index.used_bytes

    @property
    def quota_bytes(self) -> int:
        return self._quota_bytes

    # writing ----------------------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> BlobId:
        hashes = chunk_hashes_of(data)
        blob = blob_id(hashes, len(data))
        if not self._here(blob):
            with self._incoming(len(data)) as (temp, fd):
                write_all(fd, data, 0)
                self._keep(temp, fd, blob, StoredBlob(len(data), hashes))
        return blob

    def put_file(self, path: Path) -> BlobId:
        """As the port says. The bytes are those that were copied, even when the file changes meanwhile. Raises
        UsageError E2003 when `path` is no readable regular file."""
        with _plain_file(path) as source:
            # Reading twice is far cheaper than writing once, and a model is imported anew for every job.
            blob, entry = measure(source)
            if self._here(blob):
                return blob
            with self._incoming(entry.size_bytes) as (temp, fd):
                blob, entry = measure(source, fd, entry.size_bytes)
                self._keep(temp, fd, blob, entry)
                return blob

    def take_file(self, path: Path) -> BlobId:
        """As the port says. Read once and never copied, when it lies on the store's own disk and has no other name.
        Raises as `put_file` does."""
        with _plain_file(path) as source:
            found = os.fstat(source)
            if found.st_dev == self._root.stat().st_dev and found.st_nlink == 1:
                stamp = stamp_of(source)
                with self._making_room(found.st_size, keep=path), disk_errors():
                    blob, entry = measure(source, threads=HASHING_THREADS)
                    if self._here(blob):
                        path.unlink()
                        return blob
                    self._keep(path, source, blob, entry)
                    if stamp_of(source) != stamp:  # somebody wrote meanwhile: check it before it is handed out
                        self._checked.pop(blob, None)
                    return blob
        blob = self.put_file(path)
        path.unlink()
        return blob

    def begin(self, blob: BlobId, size_bytes: int, chunks: Sequence[bytes]) -> DiskPartial:
        """As the port says. What an earlier attempt left is hashed again, at the speed of the disk."""
        try:
            genuine = blob_id(chunks, size_bytes) == blob
        except ValueError:
            genuine = False
        if not genuine:
            raise fail("E1601", f"size and chunk hashes do not belong to blob {blob.hex()}")
        entry = StoredBlob(size_bytes, tuple(chunks))
        with self._lock:
            assert blob not in self._partials, "one partial per blob at a time"
            path = self._root / "partial" / blob.hex()
            self._make_room(size_bytes, keep=path)
            with disk_errors():
                partial = self._partials[blob] = self._partial(blob, entry, path)
            self._incoming_bytes += size_bytes
        try:
            with disk_errors():
                partial.recheck()
        except BaseException:
            partial.close()
            raise
        return partial

    def pin(self, blob: BlobId, owner: str) -> None:
        with self._lock, disk_errors():
            if self._index.size(blob) is None:
                raise _not_here(blob)
            self._index.pin(blob, owner)

    def unpin(self, blob: BlobId, owner: str) -> None:
        with self._lock, disk_errors():
            self._index.unpin(blob, owner)

    def hand_over(self, blobs: Iterable[BlobId], giver: str, taker: str) -> None:
        with self._lock, disk_errors():
            self._index.hand_over(blobs, giver, taker)

    def unpin_all(self, owner: str) -> None:
        with self._lock, disk_errors():
            self._index.unpin_all(owner)

    def close(self) -> None:
        """Let go of the folder."""
        with self._lock:
            if self._hold >= 0:
                for partial in list(self._partials.values()):
                    partial.close()
                self._index.close()
                os.close(self._hold)
                self._hold = -1

    # inside -----------------------------------------------------------------------------------------------------------

    def _partial(self, blob: BlobId, entry: StoredBlob, path: Path) -> DiskPartial:
        return DiskPartial(self, blob, entry, path)

    def _file(self, blob: BlobId) -> Path:
        name = blob.hex()
        return self._root / "blobs" / name[:2] / name[2:]

    def _here(self, blob: BlobId) -> bool:
        """Whether it is here and sound: who puts a blob anew holds good bytes, and must not lose them to bad ones."""
        try:
            self.path(blob)
        except UnavailableError:
            return False
        return True

    def _entry(self, blob: BlobId) -> StoredBlob:
        with self._lock:
            entry = self._index.get(blob)
            if entry is None:
                raise _not_here(blob)
            self._index.touch(blob)
            return entry

    @contextmanager
    def _opened(self, blob: BlobId) -> Generator[int]:
        try:
            fd = os.open(self._file(blob), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as problem:
            raise self._unreadable(blob, problem) from problem
        try:
            yield fd
        finally:
            os.close(fd)

    def _read_chunk(self, fd: int, blob: BlobId, entry: StoredBlob, index: int) -> bytes:
        try:
            data = os.pread(fd, chunk_length(entry.size_bytes, index), index * CHUNK_BYTES)
        except OSError as problem:
            raise self._unreadable(blob, problem) from problem
        if chunk_hash(data) != entry.chunks[index]:
            raise self._drop(blob)
        return data

    def _unreadable(self, blob: BlobId, problem: OSError) -> FallowError:
        if problem.errno in _DAMAGE:
            return self._drop(blob)
        return fail("E1602", f"blob {blob.hex()} cannot be read now: {problem.strerror}")

    def _drop(self, blob: BlobId) -> FallowError:
        """Forget a damaged blob; its pins stay and hold again when it is back."""
        with self._lock, disk_errors():
            self._remove(blob)
        return fail(
            "E1602", f"blob {blob.hex()} was damaged on this disk and has been dropped",
            cause="The file was changed, or the disk is failing.", next_step="Fetch it again.",
        )  # fmt: skip

    def _remove(self, blob: BlobId) -> None:
        # The file goes first: on a full disk the index cannot be written before there is room again. An entry whose
        # file is gone is found at the next use or start.
        self._file(blob).unlink(missing_ok=True)
        self._checked.pop(blob, None)
        self._index.remove(blob)

    @contextmanager
    def _incoming(self, size_bytes: int) -> Generator[tuple[Path, int]]:
        """An empty temporary file with room for `size_bytes`, gone afterwards unless it was kept."""
        temp = self._root / "temp" / f"{next(self._names)}"
        fd = -1
        with self._making_room(size_bytes):
            try:
                with disk_errors():
                    fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                    yield temp, fd
            finally:
                if fd >= 0:
                    os.close(fd)
                temp.unlink(missing_ok=True)

    @contextmanager
    def _making_room(self, size_bytes: int, keep: Path | None = None) -> Generator[None]:
        """Room for `size_bytes`, of which what `keep` holds is on the disk already."""
        with self._lock:
            self._make_room(size_bytes, keep)
            self._incoming_bytes += size_bytes
        try:
            yield
        finally:
            with self._lock:
                self._incoming_bytes -= size_bytes

    def _keep(self, temp: Path, fd: int, blob: BlobId, entry: StoredBlob) -> None:
        """Give complete bytes their name. Another thread may have done so first; then these go."""
        os.fsync(fd)
        os.fchmod(fd, 0o444)
        file = self._file(blob)
        with self._lock:
            if self._index.size(blob) is not None:
                temp.unlink(missing_ok=True)
                return
            if not file.parent.is_dir():
                file.parent.mkdir(mode=0o700)
                sync_folder(file.parent.parent)
            temp.rename(file)
            try:
                sync_folder(file.parent)
                self._index.add(blob, entry.size_bytes, entry.chunks)
            except BaseException:
                file.unlink(missing_ok=True)
                raise
            self._checked[blob] = stamp_of(fd)

    def _make_room(self, size_bytes: int, keep: Path | None = None) -> None:
        """Drop what nobody needs, least recently used first, until `size_bytes` fit both the quota and the disk."""
        if size_bytes > self._quota_bytes:
            quota = format_size(self._quota_bytes)
            raise fail("E1603", f"{format_size(size_bytes)} are more than the store's quota of {quota}")
        if self._lacks(size_bytes, keep):
            with disk_errors():
                for blob, _ in self._index.collectable():
                    self._remove(blob)
                    if not self._lacks(size_bytes, keep):
                        return
                for idle in self._idle_partials(keep):
                    idle.unlink()
                    if not self._lacks(size_bytes, keep):
                        return
            raise fail("E1603", f"there is no room for {format_size(size_bytes)}: the rest of the store is pinned")

    def _lacks(self, size_bytes: int, keep: Path | None) -> bool:
        idle_bytes = sum(path.stat().st_blocks * 512 for path in self._idle_partials(keep))
        used = self._index.used_bytes + self._incoming_bytes + idle_bytes
        if used + size_bytes > self._quota_bytes:
            return True
        disk = os.statvfs(self._root)
        there = keep.stat().st_blocks * 512 if keep is not None and keep.exists() else 0
        return disk.f_bavail * disk.f_frsize < size_bytes - there

    def _idle_partials(self, keep: Path | None) -> list[Path]:
        busy = {blob.hex() for blob in self._partials}
        idle = [path for path in (self._root / "partial").iterdir() if path.name not in busy and path != keep]
        return sorted(idle, key=lambda path: path.stat().st_mtime_ns)

    def _recover(self) -> None:
        """Put right what a crash may have left."""
        for path in (self._root / "temp").iterdir():
            path.unlink()
        for blob, size in self._index.ids():
            try:
                whole = self._file(blob).stat().st_size == size
            except FileNotFoundError:
                whole = False
            if not whole:
                self._remove(blob)
        for path in (self._root / "blobs").glob("??/*"):
            self._adopt(path)
        for path in (self._root / "partial").iterdir():
            blob = _id_of_name(path.name)
            if blob is None or self._index.size(blob) is not None:
                path.unlink()

    def _adopt(self, path: Path) -> None:
        blob = _id_of_name(path.parent.name + path.name)
        if blob is None or self._index.size(blob) is not None:
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            found, entry = measure(fd)
        finally:
            os.close(fd)
        if found == blob:
            self._index.add(blob, entry.size_bytes, entry.chunks)
        else:
            path.unlink()

    # for DiskPartial --------------------------------------------------------------------------------------------------

    def take_partial(self, partial: DiskPartial, fd: int) -> None:
        """Turn a complete partial into a blob."""
        with disk_errors():
            self._keep(partial.path, fd, partial.blob, partial.entry)

    def let_go(self, partial: DiskPartial) -> None:
        """The partial is no longer open."""
        with self._lock:
            if self._partials.pop(partial.blob, None) is not None:
                self._incoming_bytes -= partial.entry.size_bytes


@contextmanager
def _plain_file(path: Path) -> Generator[int]:
    """A file of the owner's or of a worker's, open for reading."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise fail("E2003", f"{path} cannot be read: {problem.strerror}") from problem
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            raise fail("E2003", f"{path} is not a regular file")
        if found.st_size > MAX_BLOB_BYTES:
            raise fail("E1604", f"{path} is larger than {format_size(MAX_BLOB_BYTES)}")
        yield source
    finally:
        os.close(source)


def _id_of_name(name: str) -> BlobId | None:
    try:
        blob = bytes.fromhex(name)
    except ValueError:
        return None
    return BlobId(blob) if len(blob) == 32 and blob.hex() == name else None


def _not_here(blob: BlobId) -> FallowError:
    return fail("E1602", f"blob {blob.hex()} is not on this machine")
