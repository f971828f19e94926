"""Many small tasks over one stream to the node, answered in any order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fallow.errors import FallowError, fail
from fallow.sdk.link import LinkStream, NodeSocket
from fallow.wire.local import LaneReceipt, OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message

WINDOW = 1024
"""How many tasks are unanswered at most; one more waits."""
MAX_PIECES = 4096


@dataclass(frozen=True)
class Answer:
    """What a task gave. `receipt` is b"" unless the lane was opened with `receipts` or the task was streamed."""

    value: bytes
    units: int
    receipt: bytes = b""


@dataclass
class _Open:
    """A task in flight. `pieces` is set for streamed ones; None in it is the end."""

    number: int
    done: asyncio.Future[Answer]
    pieces: asyncio.Queue[bytes | None] | None = None
    waits_for_receipt: bool = False
    answer: Answer | None = field(default=None)


class AsyncLane:
    """`async with client.lane(job) as lane: await lane.run(params)`. Any number of tasks may run at once, from one
    event loop. When the stream breaks, tasks in flight fail with that error; the lane is then of no more use."""

    def __init__(self, link: NodeSocket, job: bytes, *, receipts: bool = False) -> None:
        self._link, self._job, self._receipts = link, job, receipts
        self._open: dict[int, _Open] = {}
        self._last = 0
        self._window = asyncio.Semaphore(WINDOW)
        self._stack = AsyncExitStack()
        self._stream: LinkStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._broken: FallowError | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._stream = await stack.enter_async_context(self._link.open(OpenJobLane(self._job, self._receipts)))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._stack = stack.pop_all()
        self._reader = group.create_task(self._read(self._stream), name="lane reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave at once: unanswered tasks fail with E1801. The reader never raises, so that the body's own error comes
        out as it is."""
        if self._reader is not None:
            self._reader.cancel()
        self._fail_all(fail("E1801", "The lane was closed."))
        await self._stack.aclose()

    async def run(self, params: bytes, seed: int = 0) -> Answer:
        """One task. Raises the task's own error, for which nothing is owed, or the stream's."""
        return await (await self._start(params, seed, streamed=False)).done

    async def map(self, params: Iterable[bytes], seed: int = 0) -> list[Answer]:
        """All of them, pipelined; answers in the order of `params`. The first error ends it."""
        started: list[asyncio.Future[Answer]] = []
        try:
            for item in params:
                started.append((await self._start(item, seed, streamed=False)).done)
            return [await done for done in started]
        finally:
            for done in started:
                done.cancel()

    async def stream(self, params: bytes, seed: int = 0) -> AsyncGenerator[bytes | Answer, None]:
        """One task whose answer comes in pieces: bytes as they come, then the Answer. Leaving early stops the work."""
        task = await self._start(params, seed, streamed=True)
        assert task.pieces is not None
        try:
            while (piece := await task.pieces.get()) is not None:
                yield piece
            yield await task.done
        finally:
            if self._open.pop(task.number, None) is not None:
                self._window.release()
                await self._send(LaneStop(task.number))

    async def _start(self, params: bytes, seed: int, *, streamed: bool) -> _Open:
        await self._window.acquire()
        if self._broken is not None:
            self._window.release()
            raise self._broken
        self._last = number = self._last + 1
        pieces = asyncio.Queue[bytes | None](MAX_PIECES) if streamed else None
        done = asyncio.get_running_loop().create_future()
        task = self._open[number] = _Open(number, done, pieces, streamed or self._receipts)
        await self._send(LaneTask(number, params, seed, streamed))
        return task

    async def _send(self, message: Message) -> None:
        assert self._stream is not None, "use the lane in `async with`"
        await self._stream.send(message)

    async def _read(self, stream: LinkStream) -> None:
        try:
            async for message in stream:
                self._take(message)
            self._fail_all(fail("E1801", "The node ended the lane.", cause="The job is over."))
        except FallowError as error:
            self._fail_all(error)

    def _take(self, message: Message | bytes) -> None:
        match message:
            case LaneResult(number, value, units, code, what):
                if (task := self._open.get(number)) is None:
                    return
                task.answer = Answer(value, units)
                if code:
                    self._finish(task, fail_safely(code, what))
                elif not task.waits_for_receipt:
                    self._finish(task, task.answer)
            case LaneItem(number, data):
                if (task := self._open.get(number)) is not None and task.pieces is not None:
                    self._piece(task, data)
            case LaneReceipt(number, receipt):
                if (task := self._open.get(number)) is not None and task.answer is not None:
                    self._finish(task, Answer(task.answer.value, task.answer.units, receipt))
            case _:
                pass

    def _piece(self, task: _Open, data: bytes) -> None:
        """A reader who falls too far behind loses the stream rather than the node's memory."""
        assert task.pieces is not None
        if task.pieces.qsize() < MAX_PIECES - 1:
            task.pieces.put_nowait(data)
        else:
            self._finish(task, fail("E1803", "The answer was not read fast enough."))

    def _finish(self, task: _Open, outcome: Answer | FallowError) -> None:
        if self._open.pop(task.number, None) is not None:
            self._window.release()
        if not task.done.done():
            if isinstance(outcome, Answer):
                task.done.set_result(outcome)
            else:
                task.done.set_exception(outcome)
                task.done.exception()  # looked at: nobody need be waiting
        if task.pieces is not None and not task.pieces.full():
            task.pieces.put_nowait(None)

    def _fail_all(self, error: FallowError) -> None:
        self._broken = self._broken or error
        for task in list(self._open.values()):
            self._finish(task, error)


def fail_safely(code: str, what: str) -> FallowError:
    """The error of a code that came over the wire; an unknown one is reported, not trusted."""
    try:
        return fail(code, what)
    except KeyError:
        return fail("E9001", f"The node failed with an unknown code {code[:8]!r}: {what}")
