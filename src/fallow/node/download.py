"""One blob on its way in from several sources.

The blob's size and chunk hashes come from whichever source answers first and are checked against the blob's id; from
then on every chunk is checked before it is written (`wire/blob_id.py`). Sources are strangers: one that lies about the
list, sends a wrong or short chunk, or stalls is dropped and reported; one that goes away is tried again twice. The
chunks that it owed come from the others. What was written stays when the download or the process ends, and the next one
goes on from there.

Each source is read by one task: while chunks are hashed and written in threads, the next ones are received. One that
turns out to be so fast that waiting for each other costs more than the link is asked for a second stream beside the
first; on a slow link that would only mean that both wait.

Defends against: wrong, reordered, oversized or endless answers (a chunk is never longer than it should be, and must be
complete in `stall_s`), sources that send a byte at a time (others take over what they owe), blobs larger than agreed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from fallow.errors import FallowError, PeerFault, UnavailableError, fail
from fallow.node.fetch_plan import FetchPlan
from fallow.node.rpc import Rpc
from fallow.ports import Blobs, Partial
from fallow.units import MIB, BlobId, NodeId, format_size
from fallow.wire.blob_id import CHUNK_BYTES, blob_id, chunk_length
from fallow.wire.frames import MAX_FRAME_BYTES
from fallow.wire.messages import BlobFound, BlobStat, FetchBlob, Message, NodeAddress

log = structlog.get_logger()

MAX_SOURCES = 8
MAX_SOURCES_TRIED = 64
RETRY_AFTER_S = (0.2, 1.0)
FAST_AFTER_CHUNKS, FAST_CHUNK_S = 4, 0.05
"""A source is fast when this many chunks came in this time each."""
MIN_SECOND_CHUNKS = 16
"""No second stream for less than this."""
MAX_WRITES = 3
"""Chunks of one source that are being checked and written: threads of a busy machine keep a reader waiting."""
STREAM_BYTES = (MAX_WRITES + 1) * CHUNK_BYTES + 2 * MAX_FRAME_BYTES
"""The most that a stream holds: chunks being written, one being received, a frame and the pieces that it is made from.
With frames of one chunk, which is what honest nodes send, it is a quarter of that."""

OnFault = Callable[[NodeId, FallowError], None]
"""Told about every source that was dropped: PeerFault E1601 or E1102 for a proven lie, E1605 for a stall, another error
for one that cannot be reached or refuses."""
OnProgress = Callable[[int, int], None]
"""Told (bytes that are here, size of the blob) as chunks arrive."""


@dataclass(frozen=True)
class FetchLimits:
    """`memory_bytes` bounds what all downloads of a node hold in memory; a source must answer a question in `stat_s`
    and send each chunk in `stall_s`; what a source owes after `hedge_s` of silence is asked for elsewhere too."""

    memory_bytes: int = 256 * MIB
    stat_s: float = 10.0
    stall_s: float = 20.0
    hedge_s: float = 2.0


class Shared:
    """What all downloads of a node have in common."""

    def __init__(self, rpc: Rpc, blobs: Blobs, on_fault: OnFault, limits: FetchLimits) -> None:
        self.rpc, self.blobs, self.on_fault, self.limits = rpc, blobs, on_fault, limits
        self.streams = asyncio.Semaphore(max(1, limits.memory_bytes // STREAM_BYTES))


class Download:
    """One blob on its way in."""

    def __init__(self, shared: Shared, blob: BlobId, limit_bytes: int, on_progress: OnProgress | None) -> None:
        self._shared, self._limits = shared, shared.limits
        self._blob, self._limit_bytes, self._on_progress = blob, limit_bytes, on_progress
        self._opening = asyncio.Lock()
        self._over = asyncio.Event()  # complete, or hopeless
        self._changed = asyncio.Event()  # there may be something to do for the idle; replaced when set
        self._failure: FallowError | None = None
        self._complaints: list[str] = []
        self._incoming: _Incoming | None = None
        self._workers = 0

    async def run(self, sources: Sequence[NodeAddress]) -> None:
        """Fetch it. Raises as `Fetcher.fetch` does. When cancelled, what has come is kept."""
        distinct = {address.node: address for address in sources[:MAX_SOURCES_TRIED]}
        waiting = iter(distinct.values())
        self._workers = min(MAX_SOURCES, len(distinct))
        try:
            if self._workers:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._work(waiting)) for _ in range(self._workers)]
                    await self._over.wait()
                    for task in tasks:
                        task.cancel()
            if self._failure is not None:
                raise self._failure
            if self._incoming is None or not self._incoming.plan.done:
                cause = "; ".join(self._complaints[:MAX_SOURCES]) or "No source was given."
                raise fail("E1602", f"blob {self._blob.hex()} could not be fetched", cause=cause)
            await asyncio.to_thread(self._incoming.partial.commit)
        finally:
            if self._incoming is not None:
                self._incoming.partial.close()

    async def _work(self, waiting: Iterator[NodeAddress]) -> None:
        """Use one source after another until the blob is here or no source is left."""
        try:
            for address in waiting:
                await self._use(address)
        finally:
            self._workers -= 1
            if self._workers == 0:
                self._over.set()

    async def _use(self, address: NodeAddress) -> None:
        """Get from one source what it can give; returns when it is dropped or nothing is left to do."""
        source = NodeId(address.node)
        retries = iter(RETRY_AFTER_S)
        while not self._over.is_set():
            before = self._incoming.received.get(source, 0) if self._incoming else 0
            try:
                incoming = await self._ask(address)
                if incoming is None:
                    self._complaints.append(f"node {source.hex()[:12]} does not have it")
                else:
                    await self._pull(address, incoming)
                return
            except FallowError as error:
                if self._over.is_set():  # the error is ours, not the source's
                    return
                if self._incoming and self._incoming.received.get(source, 0) > before:
                    retries = iter(RETRY_AFTER_S)
                delay_s = next(retries, None) if isinstance(error, UnavailableError) else None
                if delay_s is None:
                    self._complaints.append(f"node {source.hex()[:12]}: {error.what}")
                    self._shared.on_fault(source, error)
                    return
            await asyncio.sleep(delay_s)

    # what it is
    # ---------------------------------------------------------------------------------------------------------

    async def _ask(self, address: NodeAddress) -> _Incoming | None:
        """Ask a source what it has, and check that against the blob's id; -> None when it has nothing."""
        found = await self._shared.rpc.call(address, BlobStat(self._blob), self._limits.stat_s)
        if not isinstance(found, BlobFound):
            raise fail("E1102", "another answer than was asked for")
        if found.size_bytes is None:
            return None
        async with self._opening:
            if self._incoming is None:
                self._incoming = await self._begin(found.size_bytes, found.chunks)
        if (found.size_bytes, found.chunks) != (self._incoming.size_bytes, self._incoming.chunks):
            raise fail("E1601", "a list of chunks that does not belong to the blob")
        return self._incoming

    async def _begin(self, size_bytes: int, chunks: tuple[bytes, ...]) -> _Incoming:
        try:
            genuine = blob_id(chunks, size_bytes) == self._blob
        except ValueError:
            genuine = False
        if not genuine:
            raise fail("E1601", "a list of chunks that does not belong to the blob")
        if size_bytes > self._limit_bytes:
            raise self._give_up(too_large(self._blob, size_bytes, self._limit_bytes))
        try:
            partial = await asyncio.to_thread(self._shared.blobs.begin, self._blob, size_bytes, chunks)
        except FallowError as error:
            raise self._give_up(error) from None
        plan = FetchPlan(partial.missing(), self._limits.hedge_s)
        if plan.done:
            self._over.set()
        here_bytes = size_bytes - sum(chunk_length(size_bytes, index) for index in partial.missing())
        return _Incoming(size_bytes, chunks, partial, plan, here_bytes, {})

    def _give_up(self, error: FallowError) -> FallowError:
        """Something that no other source can mend."""
        self._failure = self._failure or error
        self._over.set()
        return error

    # getting it
    # ---------------------------------------------------------------------------------------------------------

    async def _pull(self, address: NodeAddress, incoming: _Incoming) -> None:
        """Get what the source can give, on one stream or two. Raises the first error; the other stream ends with it."""
        source = NodeId(address.node)
        second = _Lane(address, source, source + b"+", lambda: None)
        failure: FallowError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                once = iter((lambda: group.create_task(self._run_second(second, incoming)),))
                first = _Lane(address, source, source, lambda: next(once, _nothing)())
                group.create_task(self._run_lane(first, incoming))
        except* FallowError as errors:
            failure = _first(errors)
        if failure is not None:  # some versions of Python wrap what is raised in `except*`
            raise failure

    async def _run_second(self, lane: _Lane, incoming: _Incoming) -> None:
        """A lie is a lie on any stream; for whatever else may happen to it, there is the first."""
        try:
            await self._run_lane(lane, incoming)
        except PeerFault:
            raise
        except FallowError as error:
            log.info("second stream ended", source=lane.source.hex()[:12], code=error.code, what=error.what)

    async def _run_lane(self, lane: _Lane, incoming: _Incoming) -> None:
        try:
            while (run := await self._next_run(lane.key, incoming)) is not None:
                async with self._shared.streams:
                    await self._receive(lane, incoming, run)
                self._release(lane.key)
        finally:
            self._release(lane.key)

    async def _next_run(self, key: bytes, incoming: _Incoming) -> range | None:
        """Wait for something to do; -> None when all is done."""
        while not incoming.plan.done:
            run = incoming.plan.next_run(key, _now_s())
            if run is not None:
                return run
            try:
                async with asyncio.timeout(self._limits.hedge_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    async def _receive(self, lane: _Lane, incoming: _Incoming, run: range) -> None:
        """Receive a run of chunks, or as much of it as others leave to this lane."""
        plan, key = incoming.plan, lane.key
        fast_at, fast_s = run.start + FAST_AFTER_CHUNKS, FAST_AFTER_CHUNKS * FAST_CHUNK_S
        start, end = run.start * CHUNK_BYTES, min(run.stop * CHUNK_BYTES, incoming.size_bytes)
        loop = asyncio.get_running_loop()
        writing: deque[_Writing] = deque()
        try:
            async with self._shared.rpc.open(lane.address, FetchBlob(self._blob, start, end - start)) as stream:
                await stream.finish()
                pieces, began_s = _Pieces(stream), _now_s()
                while (index := plan.current(key)) is not None:
                    data = await self._next_chunk(pieces, chunk_length(incoming.size_bytes, index))
                    while len(writing) >= MAX_WRITES or (writing and writing[0][1].done()):
                        await self._settle(lane, incoming, writing.popleft())
                    plan.received(key, _now_s())
                    if index == fast_at and len(run) >= MIN_SECOND_CHUNKS and _now_s() - began_s < fast_s:
                        lane.beside()
                    writing.append((index, loop.run_in_executor(None, incoming.partial.write, index, data)))
        finally:
            # Also when the source failed: the chunks that it sent before may be good.
            await self._settle_all(lane, incoming, writing)

    async def _next_chunk(self, pieces: _Pieces, length_bytes: int) -> bytes | bytearray:
        try:
            async with asyncio.timeout(self._limits.stall_s):
                return await pieces.take(length_bytes)
        except TimeoutError:
            raise fail("E1605", f"sent no chunk in {self._limits.stall_s:.0f} s") from None

    async def _settle_all(self, lane: _Lane, incoming: _Incoming, writing: deque[_Writing]) -> None:
        """Raises what the first bad chunk raises, when the others are through too."""
        try:
            while writing:
                await self._settle(lane, incoming, writing.popleft())
        finally:
            if writing:
                await self._settle_all(lane, incoming, writing)

    async def _settle(self, lane: _Lane, incoming: _Incoming, writing: _Writing) -> None:
        """Wait until a chunk is checked and written, or not."""
        index, done = writing
        try:
            await done
        except PeerFault:
            raise
        except FallowError as error:
            raise self._give_up(error) from None
        if incoming.plan.arrived(lane.key, index):
            incoming.here_bytes += chunk_length(incoming.size_bytes, index)
        incoming.received[lane.source] = incoming.received.get(lane.source, 0) + 1
        if self._on_progress is not None:
            self._on_progress(incoming.here_bytes, incoming.size_bytes)
        if incoming.plan.done:
            self._over.set()

    def _release(self, key: bytes) -> None:
        """A lane works on nothing any more: the idle may find something to do."""
        if self._incoming is not None:
            self._incoming.plan.release(key)
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(frozen=True)
class _Lane:
    """One stream from a source: `key` is its name in the plan, `beside` starts a second one."""

    address: NodeAddress
    source: NodeId
    key: bytes
    beside: Callable[[], object]


def _nothing() -> None:
    """There is a second stream already."""


def _first(errors: BaseExceptionGroup[FallowError]) -> FallowError:
    """Of two streams that failed at once, what proves a lie goes before what may be an accident."""
    found = [error for error in errors.exceptions if isinstance(error, FallowError)]
    return min(found, key=lambda error: not isinstance(error, PeerFault))


_Writing = tuple[int, "asyncio.Future[None]"]
"""A chunk and the thread's promise to check and write it."""


@dataclass
class _Incoming:
    """A blob whose size and chunk hashes are known to be true."""

    size_bytes: int
    chunks: tuple[bytes, ...]
    partial: Partial
    plan: FetchPlan
    here_bytes: int
    received: dict[NodeId, int]
    """How many chunks each source gave."""


class _Pieces:
    """Cuts a stream of raw frames, of whatever lengths the sender chose, into pieces of the lengths that are due."""

    def __init__(self, stream: AsyncIterator[Message | bytes]) -> None:
        self._items = aiter(stream)
        self._rest = memoryview(b"")

    async def take(self, length_bytes: int) -> bytes | bytearray:
        """The next `length_bytes`. Raises PeerFault E1601 when the stream ends before, or carries anything else."""
        if not self._rest:
            item = await self._next()
            if len(item) == length_bytes:  # the usual case: one frame, one chunk, no copy
                return item
            self._rest = memoryview(item)
        piece, filled = bytearray(length_bytes), 0
        while True:
            part = self._rest[: length_bytes - filled]
            piece[filled : filled + len(part)] = part
            self._rest, filled = self._rest[len(part) :], filled + len(part)
            if filled == length_bytes:
                return piece
            self._rest = memoryview(await self._next())

    async def _next(self) -> bytes:
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
            raise fail("E1601", "fewer bytes than were asked for") from None
        if not isinstance(item, bytes):
            raise fail("E1102", "a message among the bytes of a blob")
        return item


def too_large(blob: BlobId, size_bytes: int, limit_bytes: int) -> FallowError:
    """RejectedError E1604."""
    sizes = f"{format_size(size_bytes)}, and at most {format_size(limit_bytes)} were agreed"
    return fail("E1604", f"blob {blob.hex()} has {sizes}")


def _now_s() -> float:
    """The event loop's time, which its timeouts follow too."""
    return asyncio.get_running_loop().time()
