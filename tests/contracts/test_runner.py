"""What every Runner does, wherever its workers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fallow.adapters.runners.process import ProcessRunner
from fallow.ports import Runner, Worker, WorkerLimits
from fallow.sim.runner import SimRunner
from fallow.wire.claims import task_id
from fallow.wire.messages import LaneResult, LaneTask
from fallow.wire.tasks import TaskSpec
from fallow.wire.worker import (
    NO_TASK,
    DropTask,
    LaneAnswers,
    LaneBatch,
    LaneCancel,
    Preload,
    RunTask,
    WorkerDone,
    WorkerFailed,
    WorkerReady,
)
from fallow.workloads.echo import spin, start

RUNNERS: dict[str, Callable[[], Runner]] = {"process": ProcessRunner, "sim": SimRunner}
ENDLESS = b"900000000000"


class Desk:
    """A worker, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worker: Worker
        self.heard: list[Any] = []
        self._news = asyncio.Event()
        self._inside = False

    def on_messages(self, messages: list[Any]) -> None:
        assert not self._inside, "called from within send"
        self.heard += messages
        self._news.set()

    def say(self, *messages: Any) -> None:
        self._inside = True
        for message in messages:
            self.worker.send(message)
        self._inside = False

    async def hear(self, kind: type[Any], count: int = 1) -> Any:
        """The next message of that kind, or so many of them."""
        async with asyncio.timeout(20):
            while len(found := [one for one in self.heard if isinstance(one, kind)]) < count:
                self._news.clear()
                await self._news.wait()
        self.heard = [one for one in self.heard if one not in found[:count]]
        return found[0] if count == 1 else found[:count]

    def order(self, kind: str, params: bytes, seed: int = 0, units: int = 1) -> RunTask:
        spec = TaskSpec(kind, params, (), seed, units, 60, 0)
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        return RunTask(task_id(spec), spec, {}, str(out), 1)

    async def answers(self, count: int) -> list[LaneResult]:
        async with asyncio.timeout(20):
            found: list[LaneResult] = []
            while len(found) < count:
                batch = await self.hear(LaneAnswers)
                found += [one for one in batch.answers if isinstance(one, LaneResult)]
        return found


@asynccontextmanager
async def opened(runner: Runner, folder: Path) -> AsyncGenerator[Desk]:
    folder.mkdir()
    desk = Desk(folder)
    async with runner.open(folder, WorkerLimits(), desk.on_messages, lambda _line: None) as desk.worker:
        yield desk
    assert desk.worker.ended.is_set()
    desk.worker.send(LaneCancel((1,)))
    await desk.worker.drain()
    desk.worker.kill("again")


@pytest.fixture(params=list(RUNNERS))
def runner(request: pytest.FixtureRequest) -> Runner:
    return RUNNERS[request.param]()


@pytest.fixture
async def desk(runner: Runner, tmp_path: Path) -> AsyncGenerator[Desk]:
    """A worker that is ready."""
    async with opened(runner, tmp_path / "w") as desk:
        assert (await desk.hear(WorkerReady)).kind == ""
        yield desk


async def test_tasks_are_done_one_after_the_other(desk: Desk) -> None:
    for word in (b"one", b"two"):
        order = desk.order("echo", word)
        desk.say(order)
        done = await desk.hear(WorkerDone)
        assert (done.task_id, done.value, done.files) == (order.task_id, word, {})
    order = desk.order("spin", b"1000", seed=7)
    desk.say(order)
    assert (await desk.hear(WorkerDone)).value == spin(start(7), 1000)
    assert not desk.worker.ended.is_set()


@pytest.mark.parametrize(("kind", "params"), [("nothing", b""), ("spin", b"many")])
async def test_a_task_that_makes_no_sense_fails_by_its_code(desk: Desk, kind: str, params: bytes) -> None:
    order = desk.order(kind, params)
    desk.say(order)
    failed = await desk.hear(WorkerFailed)
    assert (failed.task_id, failed.code, failed.retryable) == (order.task_id, "E1707", False)
    desk.say(desk.order("echo", b"still here"))
    await desk.hear(WorkerDone)


async def test_one_task_at_a_time_until_it_is_dropped(desk: Desk) -> None:
    endless, other = desk.order("spin", ENDLESS, units=10**6), desk.order("echo", b"other")
    desk.say(endless, other)
    busy = await desk.hear(WorkerFailed)
    assert (busy.task_id, busy.code, busy.retryable) == (other.task_id, "E1803", True)
    desk.say(DropTask(other.task_id), DropTask(endless.task_id))
    dropped = await desk.hear(WorkerFailed)
    assert (dropped.task_id, dropped.code) == (endless.task_id, "E1402")
    desk.say(other)
    assert (await desk.hear(WorkerDone)).value == b"other"


async def test_a_lane_answers_in_order_beside_a_task(desk: Desk) -> None:
    desk.say(Preload("echo", {}, 1), desk.order("spin", ENDLESS, units=10**6))
    assert (await desk.hear(WorkerReady)).kind == "echo"
    tasks = tuple(LaneTask(number, b"%d" % number) for number in range(1, 501))
    desk.say(LaneBatch(tasks[:200]), LaneBatch(tasks[200:]), LaneCancel((500,)))
    found = await desk.answers(500)
    assert [(one.number, one.value, one.units, one.code) for one in found] == [
        (number, b"%d" % number, 1, "") for number in range(1, 501)
    ]


async def test_a_lane_that_makes_no_sense_is_refused(desk: Desk) -> None:
    desk.say(LaneBatch((LaneTask(1, b"x"),)))
    assert [one.code for one in await desk.answers(1)] == ["E1707"]
    desk.say(Preload("nothing", {}, 1))
    failed = await desk.hear(WorkerFailed)
    assert (failed.task_id, failed.code) == (NO_TASK, "E1707")


async def test_while_reading_is_paused_nothing_is_heard(desk: Desk) -> None:
    desk.say(Preload("echo", {}, 1))
    await desk.hear(WorkerReady)
    desk.worker.pause_reading()
    desk.say(LaneBatch((LaneTask(1, b"x"),)))
    await desk.worker.drain()
    await asyncio.sleep(0.2)
    assert desk.heard == []
    desk.worker.resume_reading()
    assert [one.value for one in await desk.answers(1)] == [b"x"]


async def test_a_killed_worker_says_why_and_nothing_more(desk: Desk) -> None:
    desk.say(desk.order("spin", ENDLESS, units=10**6))
    desk.worker.kill("it took too long")
    desk.worker.kill("another reason")
    assert desk.worker.condemned
    await asyncio.wait_for(desk.worker.ended.wait(), 10)
    assert desk.worker.why == "it took too long"
    desk.say(desk.order("echo", b"hello"))
    await desk.worker.drain()
    await desk.worker.stop()
    assert [one for one in desk.heard if isinstance(one, WorkerDone)] == []


async def test_a_worker_ends_with_its_context(runner: Runner, tmp_path: Path) -> None:
    async with opened(runner, tmp_path / "a") as one, opened(runner, tmp_path / "b") as two:
        assert one.worker.pid != two.worker.pid
        assert not one.worker.ended.is_set()
    for desk in (one, two):
        assert (desk.worker.why, desk.worker.condemned) == ("stopped", False)
    workers = [one.worker]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), opened(runner, tmp_path / "c") as three:
            workers.append(three.worker)
            await asyncio.Event().wait()
    assert workers[-1].ended.is_set()


async def test_what_an_earlier_process_left_is_ended(runner: Runner, tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    async with opened(runner, home / "w") as left, opened(runner, elsewhere / "w") as other:
        await left.hear(WorkerReady)
        assert await asyncio.to_thread(runner.kill_orphans, home) == 1
        await asyncio.wait_for(left.worker.ended.wait(), 10)
        assert (left.worker.why, left.worker.condemned) == ("killed by signal 9", False)
        assert not other.worker.ended.is_set()
    assert await asyncio.to_thread(runner.kill_orphans, home) == 0
