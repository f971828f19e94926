"""File operations of the blob store on disk: whole writes, syncs, copies hashed on the way, and what a failing disk
means to whoever called."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import queue
import sqlite3
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from fallow.adapters.blobs_index import StoredBlob
from fallow.errors import fail
from fallow.units import BlobId
from fallow.wire.blob_id import CHUNK_BYTES, blob_id, chunk_count, chunk_hash, chunk_length

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SQLITE_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file: while it stays the same, nobody wrote to it in the ordinary way."""


def take_hold(root: Path) -> int:
    """Lock the store. A lock of the kernel's, since it goes with the process however that ends. Record locks are not
    inherited by children, so a worker that outlives the node does not keep the store from it."""
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def measure(
    source: int, target: int = -1, limit_bytes: int | None = None, threads: int = 1
) -> tuple[BlobId, StoredBlob]:
    """Hash an open file from its start, copying it to `target` on the way. Stops at `limit_bytes`. What is not copied
    may be hashed by several threads."""
    if threads > 1 and target < 0 and limit_bytes is None:
        return _measure_side_by_side(source, threads)
    hashes: list[bytes] = []
    size = 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while limit_bytes is None or size < limit_bytes:
        wanted = CHUNK_BYTES if limit_bytes is None else min(CHUNK_BYTES, limit_bytes - size)
        count = os.preadv(source, [buffer[:wanted]], size)
        if count == 0:
            break
        hashes.append(chunk_hash(buffer[:count]))
        if target >= 0:
            write_all(target, buffer[:count], size)
        size += count
        if count < CHUNK_BYTES:
            break
    return blob_id(hashes, size), StoredBlob(size, tuple(hashes))


def _measure_side_by_side(source: int, threads: int) -> tuple[BlobId, StoredBlob]:
    """Past the page cache where that can be done: what is hashed here is seldom read again, and would push out of
    memory what is."""
    size = os.fstat(source).st_size
    try:
        with _directly(source, wanted=size >= CHUNK_BYTES):
            hashes = _hashes_side_by_side(source, size, threads)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        hashes = _hashes_side_by_side(source, size, threads)  # it asks for other alignments than ours
    return blob_id(hashes, size), StoredBlob(size, hashes)


@contextmanager
def _directly(source: int, *, wanted: bool) -> Generator[None]:
    """Reads of an open file go past the page cache meanwhile, where its file system knows how."""
    flags = fcntl.fcntl(source, fcntl.F_GETFL)
    if wanted:
        with suppress(OSError):
            fcntl.fcntl(source, fcntl.F_SETFL, flags | getattr(os, "O_DIRECT", 0))
    try:
        yield
    finally:
        fcntl.fcntl(source, fcntl.F_SETFL, flags)


def _hashes_side_by_side(source: int, size: int, threads: int) -> tuple[bytes, ...]:
    spare = queue.SimpleQueue[mmap.mmap]()
    for _ in range(threads):
        spare.put(mmap.mmap(-1, CHUNK_BYTES))  # begins at a page, as direct reads ask for

    def one(index: int) -> bytes:
        buffer = spare.get()
        try:
            count = os.preadv(source, [buffer], index * CHUNK_BYTES)
            return chunk_hash(memoryview(buffer)[: min(count, chunk_length(size, index))])
        finally:
            spare.put(buffer)

    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(one, range(chunk_count(size))))


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def opened_folder(folder: Path) -> Generator[int]:
    """A folder as an open file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with opened_folder(folder) as fd:
        os.fsync(fd)


def stamp_of(fd: int) -> Stamp:
    """The stamp of an open file."""
    found = os.fstat(fd)
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def disk_errors() -> Generator[None]:
    """Errors of the disk in the block become UnavailableError E1603 when it is full, UsageError E1004 when it fails in
    another way."""
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise fail("E1603", f"the disk is full: {problem.strerror}") from problem
        raise fail("E1004", f"the blob store cannot be used: {problem}") from problem
    except sqlite3.Error as problem:
        if getattr(problem, "sqlite_errorname", "") in _SQLITE_FULL:
            raise fail("E1603", f"the disk is full: {problem}") from problem
        raise fail("E1004", f"the blob store's index cannot be used: {problem}") from problem
