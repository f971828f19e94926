"""States on their way to disk while the next step is taken, and the ids of states that are not written at all.

A state changes in place with the next step, so it is copied first (a tenth of what writing costs) and written by one
thread in the order of the calls. What waits is bounded; beyond that a state is written before the step goes on.

Large states go to the disk past the page cache, where it can be done: gigabytes that are written once and of which
hardly anything is read again would cost the processor more than the hashing, and push what the machine's owner works
with out of memory.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from fallow.numerics import layout
from fallow.numerics.layout import Array, Layout
from fallow.units import MIB
from fallow.wire.blob_id import blob_id, chunk_pieces, pieces_hash

MAX_WAITING_BYTES = 128 * MIB
"""What may wait for the disk: part of the worker's leased memory."""
DIRECT = getattr(os, "O_DIRECT", 0)
BLOCK_BYTES = 4_096
DIRECT_FROM_BYTES = 1 * MIB


class StateFiles:
    """Writes states behind the steps; use it in `with`. Raises OSError from `write` or the end of the block when the
    disk failed at any state: a round is only whole when all its states are."""

    def __init__(self, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max = max_waiting_bytes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="states")
        self._waiting: deque[tuple[Future[None], mmap.mmap]] = deque()
        self._held = 0
        self._spare: dict[int, list[mmap.mmap]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all is written; when the block failed, drop what has not begun."""
        try:
            while kind is None and self._waiting:
                self._settle()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._waiting.clear()
            self._spare.clear()

    def write(self, path: Path, plan: Layout, tensors: Mapping[str, Array]) -> None:
        """Write a state as it is now; its tensors may change at once afterwards."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = -(-plan.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        while self._waiting and (self._held + size > self._max or self._waiting[0][0].done()):
            self._settle()
        if size > self._max:  # a copy would not fit beside the model
            layout.write(path, plan, tensors)
            return
        buffer = self._buffer(size)
        _copy(plan, tensors, np.frombuffer(buffer, np.uint8))
        self._held += size
        self._waiting.append((self._pool.submit(write_whole, path, buffer, plan.size_bytes), buffer))

    def _buffer(self, size: int) -> mmap.mmap:
        """Memory that begins at a page, as writing past the cache asks for."""
        if spare := self._spare.get(size):
            return spare.pop()
        idle = sum(length * len(buffers) for length, buffers in self._spare.items())
        if self._held + idle + size > self._max:
            self._spare.clear()
        return mmap.mmap(-1, size)

    def _settle(self) -> None:
        """Wait for the oldest. Its buffer is used again: fresh memory costs more than the copy into it."""
        writing, buffer = self._waiting.popleft()
        writing.result()
        self._held -= len(buffer)
        self._spare.setdefault(len(buffer), []).append(buffer)


def identity(plan: Layout, tensors: Mapping[str, Array], threads: int = 1) -> bytes:
    """The blob id of a file with these tensors, without writing or copying it, hashed by `threads` side by side."""
    chunks = (pieces for pieces, _ in chunk_pieces(layout.parts(plan, tensors)))
    return bytes(blob_id(tuple(_hashes(chunks, threads)), plan.size_bytes))


def _hashes(chunks: Iterable[list[memoryview]], threads: int) -> Iterable[bytes]:
    if threads == 1:
        return map(pieces_hash, chunks)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(pieces_hash, chunks))


def _copy(plan: Layout, tensors: Mapping[str, Array], buffer: npt.NDArray[np.uint8]) -> None:
    at = 0
    for part in layout.parts(plan, tensors):
        piece = np.frombuffer(part, np.uint8)
        buffer[at : at + piece.size] = piece
        at += piece.size


def write_whole(path: Path, buffer: mmap.mmap, size_bytes: int) -> None:
    """Write a file of the first `size_bytes` of a buffer of whole blocks, past the page cache where that pays."""
    if DIRECT and size_bytes >= DIRECT_FROM_BYTES and _written(path, buffer, DIRECT):
        os.truncate(path, size_bytes)  # direct writes are whole blocks
        return
    _written(path, memoryview(buffer)[:size_bytes], 0)


def _written(path: Path, data: mmap.mmap | memoryview, how: int) -> bool:
    """Write a whole file. False when this file system knows no such way; OSError for everything else."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | how, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
    except OSError as problem:
        if how and problem.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True
