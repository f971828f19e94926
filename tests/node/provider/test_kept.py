"""Which workers outlive their lease, for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fallow.node.provider.kept import KEPT_S, MOST_KEPT, KeptFor, LongWorker, WorkerShelf
from fallow.ports import READ, WORK, WorkerLimits
from fallow.wire.worker import WorkerReady

LIMITS = WorkerLimits(1 << 20)
MINE = KeptFor(b"me", "wasm", LIMITS)


class FakeWorker:
    def __init__(self, number: int) -> None:
        self.pid, self.ended, self.why, self.condemned = number, asyncio.Event(), "", False

    async def stop(self) -> None:
        self.ended.set()


class FakeRunner:
    """Opens workers that say at once that they are ready."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken, self.opened = broken, list[FakeWorker]()

    @asynccontextmanager
    async def open(self, folder: Path, limits: WorkerLimits, on_messages: Any, on_line: Any) -> AsyncGenerator[Any]:
        if self.broken:
            raise OSError(1, "no box")
        for name in (READ, WORK):
            (folder / name).mkdir(parents=True, exist_ok=True)
        worker = FakeWorker(len(self.opened) + 1)
        self.opened.append(worker)
        on_messages([WorkerReady()])
        yield worker
        worker.ended.set()


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


async def started(group: asyncio.TaskGroup, runner: FakeRunner, folder: Path) -> LongWorker:
    worker = LongWorker(folder)
    worker.begin(group, runner, LIMITS)  # type: ignore[arg-type]
    await worker.worker()
    return worker


async def test_a_worker_is_kept_for_the_same_account_kind_and_limits_alone(runner: FakeRunner, tmp_path: Path) -> None:
    shelf = WorkerShelf()
    async with asyncio.TaskGroup() as group:
        worker = await started(group, runner, tmp_path / "a")
        (worker.folder / READ / "input").write_text("of its lease")
        await shelf.put(MINE, worker, 0)
        assert shelf.pids() == {1}
        assert list((worker.folder / READ).iterdir()) == []
        for other in (MINE._replace(account=b"you"), MINE._replace(kind="echo"), MINE._replace(limits=WorkerLimits(1))):
            assert shelf.take(other) is None
        assert shelf.take(MINE) is worker
        assert shelf.take(MINE) is None
        await worker.end()


async def test_what_nobody_takes_ends_and_so_does_what_is_too_much(runner: FakeRunner, tmp_path: Path) -> None:
    shelf = WorkerShelf()
    async with asyncio.TaskGroup() as group:
        for number in range(MOST_KEPT + 1):
            await shelf.put(MINE, await started(group, runner, tmp_path / str(number)), number)
        assert [one.ended.is_set() for one in runner.opened] == [True] + [False] * MOST_KEPT
        assert not (tmp_path / "0").exists()
        await shelf.tidy(KEPT_S + 1)
        assert [one.ended.is_set() for one in runner.opened] == [True, True] + [False] * (MOST_KEPT - 1)
        await shelf.tidy(KEPT_S + 1, 0)
        assert all(one.ended.is_set() for one in runner.opened)


async def test_one_that_died_is_not_given_out(runner: FakeRunner, tmp_path: Path) -> None:
    shelf = WorkerShelf()
    async with asyncio.TaskGroup() as group:
        worker = await started(group, runner, tmp_path / "a")
        await shelf.put(MINE, worker, 0)
        runner.opened[0].ended.set()
        assert shelf.take(MINE) is None
        await shelf.tidy(1)
        assert shelf.pids() == set()


async def test_whoever_has_it_hears_it_and_nobody_else(runner: FakeRunner, tmp_path: Path) -> None:
    heard: list[Any] = []
    async with asyncio.TaskGroup() as group:
        worker = LongWorker(tmp_path / "a")
        worker.listen(heard.extend, heard.append)
        worker.begin(group, runner, LIMITS)  # type: ignore[arg-type]
        await worker.worker()
        worker._said("a line")
        worker.listen(None, None)
        worker._said("another")
        assert heard == [WorkerReady(), "a line"]
        await worker.end()
        assert worker.over.is_set()


async def test_without_a_process_there_is_an_error_and_an_end(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        worker = LongWorker(tmp_path / "a")
        worker.begin(group, FakeRunner(broken=True), LIMITS)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="no box"):
            await worker.worker()
        assert worker.living is None
        await worker.end()
