"""Workers that outlive their lease: of kinds whose tasks take less time than a worker takes to start, a worker is kept
for the next lease of the same account. Nobody else's work ever runs in it.

Defends against: an account's code that waits in a worker for another's; workers that are kept without end, or without
number. Does not defend an account against itself: what its own code left in a worker, its next task may meet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fallow.node.folders import remove
from fallow.node.groups import begin
from fallow.ports import READ, WORK, OnLine, OnMessages, Runner, Worker, WorkerLimits
from fallow.wire.worker import FromWorker, WorkerReady

MOST_KEPT, KEPT_S = 4, 300.0


class KeptFor(NamedTuple):
    """For whom a worker is kept: the account, the kind of its tasks, and what it may use."""

    account: bytes
    kind: str
    limits: WorkerLimits


class LongWorker:
    """A worker in its folder, whose messages go to whoever has it now. It lives until it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ready = folder, False
        self.over = asyncio.Event()
        """Whoever has it need not wait any longer: its process ended, or it is to be let go."""
        self._on_messages: OnMessages | None = None
        self._on_line: OnLine | None = None
        self._opened: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    def begin(self, group: asyncio.TaskGroup, runner: Runner, limits: WorkerLimits) -> None:
        """Start its process; one that was begun already is left alone."""
        if self._life is None:
            self._life = begin(group, self._live(runner, limits), "worker")

    def listen(self, on_messages: OnMessages | None, on_line: OnLine | None) -> None:
        """From now on these are told; what one says that nobody has is lost."""
        self._on_messages, self._on_line = on_messages, on_line

    async def worker(self) -> Worker:
        """Once its process is there. Raises OSError when none could be started."""
        return await asyncio.shield(self._opened)

    @property
    def living(self) -> Worker | None:
        """Its process, while there is one that is ready."""
        if not self.ready or not self._opened.done() or self._opened.exception() is not None:
            return None
        worker = self._opened.result()
        return worker if not worker.ended.is_set() else None

    async def end(self) -> None:
        """Stop it, and wait until it is gone."""
        if self._life is None:
            return
        with suppress(OSError):
            await (await self.worker()).stop()
        await asyncio.wait({self._life})

    async def _live(self, runner: Runner, limits: WorkerLimits) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            async with runner.open(self.folder, limits, self._heard, self._said) as worker:
                self._opened.set_result(worker)
                await worker.ended.wait()
        except OSError as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)
        finally:
            self.over.set()

    def _heard(self, messages: list[FromWorker]) -> None:
        self.ready = self.ready or any(isinstance(one, WorkerReady) and not one.kind for one in messages)
        if self._on_messages is not None:
            self._on_messages(messages)

    def _said(self, line: str) -> None:
        if self._on_line is not None:
            self._on_line(line)


class WorkerShelf:
    """The workers that are kept, the oldest first."""

    def __init__(self) -> None:
        self._kept: list[tuple[KeptFor, LongWorker, float]] = []

    def take(self, wanted: KeptFor) -> LongWorker | None:
        """One that was kept for this, which is the taker's from now on."""
        for place, (keeping, worker, _) in enumerate(self._kept):
            if keeping == wanted and worker.living is not None:
                del self._kept[place]
                return worker
        return None

    async def put(self, keeping: KeptFor, worker: LongWorker, now_s: float) -> None:
        """Keep one that has nothing to do; what its lease left in its folder is removed."""
        worker.listen(None, None)
        worker.over.clear()
        await asyncio.to_thread(_empty, worker.folder)
        self._kept.append((keeping, worker, now_s))
        await self.tidy(now_s)

    async def tidy(self, now_s: float, most: int = MOST_KEPT) -> None:
        """End those that nobody took in time, that died, and what is over `most`."""
        fresh = [one for one in self._kept if one[1].living is not None and now_s - one[2] < KEPT_S]
        stay = fresh[max(len(fresh) - most, 0) :]
        gone, self._kept = [worker for _, worker, _ in self._kept if worker not in [one[1] for one in stay]], stay
        for worker in gone:
            await worker.end()
            await asyncio.to_thread(remove, worker.folder)

    def pids(self) -> set[int]:
        """Their processes."""
        return {worker.pid for _, one, _ in self._kept if (worker := one.living) is not None}


def _empty(folder: Path) -> None:
    for inner in (READ, WORK):
        for path in (folder / inner).iterdir():
            remove(path)
