"""Workers without processes: the typed workloads' own functions, called in this process when their time has passed on
the loop's clock. What a kind computes, and how long that takes, is a `Craft`; cheats are other crafts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fallow.ports import OnLine, OnMessages, WorkerLimits
from fallow.wire.worker import (
    FromWorker,
    RunTask,
    ToWorker,
    WorkerFailed,
    WorkerLog,
    WorkerProgress,
    WorkerReady,
)
from fallow.workloads.lane import open_lane
from fallow.workloads.task import TaskResult, TaskRun
from fallow.workloads.worker import LaneOpener, WorkerDesk, attempt, done, workload

START_S = 0.1
UNITS_PER_S = 1_000


def unit_seconds(order: RunTask) -> float:
    """As long as the units that it is paid for take."""
    return order.task.units / UNITS_PER_S


@dataclass(frozen=True)
class Craft:
    """How work is done: a task of a kind, a lane of a kind, and how long a task takes. What these call is on the loop's
    thread and must not wait."""

    workload: Callable[[str], Callable[[TaskRun], TaskResult]] = workload
    open_lane: LaneOpener = open_lane
    seconds: Callable[[RunTask], float] = unit_seconds


class SimWorker:
    """One worker that pretends to be somewhere else: nothing that it is told or tells happens in the same turn of the
    loop."""

    def __init__(self, pid: int, craft: Craft, group: asyncio.TaskGroup, on_messages: OnMessages) -> None:
        self.pid, self.ended, self.why, self.condemned = pid, asyncio.Event(), "", False
        self._craft, self._group, self._on_messages = craft, group, on_messages
        self._said: list[FromWorker] = []
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._order: RunTask | None = None
        self._desk = WorkerDesk(self.say, self, craft.open_lane, lambda: 0.0)

    def send(self, message: ToWorker) -> None:
        self._soon(lambda: self._take(message))

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._soon(self._flush)

    def kill(self, why: str) -> None:
        self.end(why, condemned=True)

    def end(self, why: str, *, condemned: bool = False) -> None:
        """What becomes of it when a process like it ends so."""
        if self.ended.is_set():
            return
        self.why, self.condemned = why, condemned
        if self._task is not None:
            self._task.cancel()
        self.ended.set()

    async def stop(self) -> None:
        self.end("stopped")

    def say(self, message: FromWorker) -> None:
        """What it has to say, in order, and together with what else it says by then."""
        self._said.append(message)
        self._soon(self._flush)

    def _soon(self, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(lambda: None if self.ended.is_set() else act())

    def _flush(self) -> None:
        if self._said and not self._paused:
            said, self._said = self._said, []
            self._on_messages(said)

    def _take(self, message: ToWorker) -> None:
        self._desk.take(message)
        self._desk.settle()

    def start(self, order: RunTask) -> None:
        """A whole task."""
        if self._order is not None:
            self.say(WorkerFailed(order.task_id, "E1803", "The worker is busy with another task.", True))
            return
        self._order = order
        self._task = self._group.create_task(self._run(order), name="sim worker task")

    def cancel(self, task_id: bytes) -> None:
        """The task is not wanted any more."""
        if self._order is not None and self._order.task_id == task_id and self._task is not None:
            self._task.cancel()
            self._order = None
            self.say(WorkerFailed(task_id, "E1402", "The task was cancelled.", False))

    async def _run(self, order: RunTask) -> None:
        await asyncio.sleep(self._craft.seconds(order))
        inputs = {name: Path(path) for name, path in order.inputs.items()}

        def progress(done: int, total: int, note: str) -> None:
            self.say(WorkerProgress(order.task_id, done, total, note[:200]))

        def log(text: str) -> None:
            self.say(WorkerLog(order.task_id, text))

        work = TaskRun(order.task, inputs, Path(order.outdir), order.threads, progress, log)
        outcome = attempt(order.task_id, lambda: self._craft.workload(order.task.kind)(work))
        self._order = None
        self.say(outcome if isinstance(outcome, WorkerFailed) else done(order, outcome, {}))


class SimRunner:
    """Opens such workers; `living` are those under way, with their homes."""

    def __init__(self, craft: Craft | None = None) -> None:
        self._craft = craft or Craft()
        self._pids = itertools.count(1)
        self.living: dict[int, tuple[Path, SimWorker]] = {}

    def guard(self) -> str:
        return "a simulation, in which nothing of a stranger's runs"

    @asynccontextmanager
    async def open(
        self, folder: Path, limits: WorkerLimits, on_messages: OnMessages, on_line: OnLine
    ) -> AsyncGenerator[SimWorker]:
        async with asyncio.TaskGroup() as group:
            worker = SimWorker(next(self._pids), self._craft, group, on_messages)
            self.living[worker.pid] = folder, worker
            asyncio.get_running_loop().call_later(START_S, lambda: worker.ended.is_set() or worker.say(WorkerReady()))
            try:
                yield worker
            finally:
                worker.end("stopped")
                del self.living[worker.pid]

    def kill_orphans(self, folder: Path) -> int:
        left = [worker for home, worker in self.living.values() if home.parent == folder]
        for worker in left:
            worker.end("killed by signal 9")
        return len(left)
