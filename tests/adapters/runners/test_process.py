"""Real worker processes, good and bad."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.open_files import open_sockets

from fallow.adapters.runners.process import (
    COMMAND,
    ProcessRunner,
    ProcessWorker,
    held_bytes,
    worker_environment,
)
from fallow.ports import WorkerLimits
from fallow.units import MIB
from fallow.wire.claims import task_id
from fallow.wire.messages import LaneResult, LaneTask
from fallow.wire.tasks import TaskSpec
from fallow.wire.worker import LaneAnswers, LaneBatch, Preload, RunTask, WorkerDone, WorkerFailed, WorkerReady

BAD = """
import os, signal, socket, sys, time, subprocess
link = socket.socket(fileno=int(sys.argv[-1]))
"""


class Seen:
    """What a worker said, and a way to wait for it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.lines: list[str] = []
        self._news = asyncio.Event()

    def on_messages(self, messages: list[Any]) -> None:
        self.messages += messages
        self._news.set()

    def on_line(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not ready():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(
    tmp_path: Path, seen: Seen, bad: str = "", *, boxed: bool = True, **limits: Any
) -> AsyncGenerator[ProcessWorker]:
    home = tmp_path / "w"
    home.mkdir(exist_ok=True)
    runner = ProcessRunner((sys.executable, "-c", BAD + bad) if bad else COMMAND, boxed=boxed)
    async with runner.open(home, WorkerLimits(**limits), seen.on_messages, seen.on_line) as worker:
        yield worker


def is_gone(pid: int) -> bool:
    """Whether a killed process ends within ten seconds; a zombie that nobody buries has ended."""
    try:
        process = psutil.Process(pid)
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            psutil.wait_procs([process], timeout=0.1)
    except psutil.NoSuchProcess:
        return True
    return False


async def ended(worker: ProcessWorker) -> str:
    async with asyncio.timeout(120):
        await worker.ended.wait()
    return worker.why


async def test_runs_a_task_and_stops_when_asked(tmp_path: Path) -> None:
    seen = Seen()
    spec = TaskSpec("echo", b"hello", (), seed=0, units=1, timeout_s=5, ram_bytes=0)
    async with running(tmp_path, seen) as worker:
        await seen.until(lambda: WorkerReady() in seen.messages)
        worker.send(RunTask(task_id(spec), spec, {}, str(tmp_path), 1))
        await seen.until(lambda: isinstance(seen.messages[-1], WorkerDone))
        assert seen.messages[-1].value == b"hello"
        assert [note.stem for note in tmp_path.glob("*.worker")] == [str(worker.pid)]
    assert (worker.why, psutil.pid_exists(worker.pid)) == ("stopped", False)
    assert list(tmp_path.glob("*.worker")) == []
    worker.send(LaneBatch(()))


async def test_answers_lane_tasks_in_bulk_and_can_be_held_back(tmp_path: Path) -> None:
    seen, count = Seen(), 3_000
    async with running(tmp_path, seen) as worker:
        worker.send(Preload("echo", {}, 1))
        await seen.until(lambda: any(isinstance(m, WorkerReady) and m.kind == "echo" for m in seen.messages))
        worker.pause_reading()
        worker.send(LaneBatch(tuple(LaneTask(number, b"x") for number in range(1, count + 1))))
        await worker.drain()
        worker.resume_reading()
        answers: list[LaneResult] = []

        def all_there() -> bool:
            found = [a for m in seen.messages if isinstance(m, LaneAnswers) for a in m.answers]
            answers[:] = [a for a in found if isinstance(a, LaneResult)]
            return len(answers) == count

        await seen.until(all_there)
    assert [a.number for a in answers] == list(range(1, count + 1))
    assert {(a.value, a.units, a.code) for a in answers} == {(b"x", 1, "")}


async def test_sees_no_secrets_and_no_model_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    seen = Seen()
    bad = "import json; print(json.dumps(dict(os.environ))); print(os.getcwd()); sys.stdout.flush(); link.recv(1)"
    async with running(tmp_path, seen, bad, threads=3, cards=("GPU-1", "GPU-2")):
        await seen.until(lambda: len(seen.lines) == 2)
    told, folder = json.loads(seen.lines[0]), seen.lines[1]
    assert "secret" not in told.values()
    assert (told["HF_HUB_OFFLINE"], told["OMP_NUM_THREADS"], told["CUDA_VISIBLE_DEVICES"]) == ("1", "3", "GPU-1,GPU-2")
    assert (told["HOME"], folder) == (str(tmp_path / "w" / "work"), str(tmp_path / "w" / "work"))


async def test_a_worker_that_eats_memory_is_killed_and_says_so(tmp_path: Path) -> None:
    bad = f"held = [bytearray({MIB}) for _ in range(400)]; time.sleep(60)"
    async with running(tmp_path, Seen(), bad, ram_bytes=200 * MIB) as worker:
        assert (await ended(worker)).startswith("out of memory: it held")


GREEDY = """
import sys, torch
from fallow.workloads import worker
from fallow.workloads.task import TaskResult

def want(work):
    return TaskResult(str(float(torch.ones(work.task.seed).sum())).encode())

worker.workload = lambda kind: want
worker.main(sys.argv[1:])
"""


async def test_a_task_that_wants_more_than_was_leased_fails_by_its_code_and_the_worker_lives(tmp_path: Path) -> None:
    seen, home = Seen(), tmp_path / "w"
    home.mkdir()

    def order(floats: int) -> RunTask:
        spec = TaskSpec("spin", b"", (), floats, 1, 10, 1)
        return RunTask(bytes(task_id(spec)), spec, {}, str(home), 1)

    async def answer(task: RunTask) -> Any:
        seen.messages.clear()
        worker.send(task)
        await seen.until(lambda: any(isinstance(message, WorkerDone | WorkerFailed) for message in seen.messages))
        return seen.messages[-1]

    runner = ProcessRunner((sys.executable, "-c", GREEDY))
    async with runner.open(home, WorkerLimits(700 * MIB), seen.on_messages, seen.on_line) as worker:
        first, second, third = [await answer(order(floats)) for floats in (1 << 20, 1 << 30, 1 << 20)]
        assert not worker.ended.is_set()
    assert (first.value, third.value) == (b"1048576.0", b"1048576.0")
    assert (second.code, second.retryable) == ("E1704", True)
    assert "memory" in second.what


async def test_outside_a_box_children_of_a_worker_count_and_die_with_it(tmp_path: Path) -> None:
    seen = Seen()
    child = "import time; held = bytearray(300 * 2**20); print('held', flush=True); time.sleep(60)"
    bad = f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); print(child.pid, flush=True); time.sleep(60)"
    async with running(tmp_path, seen, bad, boxed=False, ram_bytes=200 * MIB) as worker:
        assert (await ended(worker)).startswith("out of memory")
    pid = int(next(line for line in seen.lines if line.isdigit()))
    assert is_gone(pid)


async def test_memory_of_mapped_files_does_not_count(tmp_path: Path) -> None:
    model = tmp_path / "w" / "in" / "model"
    model.parent.mkdir(parents=True)
    model.write_bytes(bytes(64 * MIB))
    seen = Seen()
    bad = (
        f"import mmap; f = open({str(model)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ);"
        "print(sum(m[i] for i in range(0, len(m), 4096)), flush=True); link.recv(1)"
    )
    async with running(tmp_path, seen, bad) as worker:
        await seen.until(lambda: seen.lines == ["0"])
        inside = psutil.Process(worker.pid).children()
        assert max(one.memory_info().rss for one in inside or [psutil.Process(worker.pid)]) > 64 * MIB
        assert 0 < held_bytes(worker.pid) < 48 * MIB


async def test_death_is_noticed_and_explained(tmp_path: Path) -> None:
    async with running(tmp_path, Seen(), "time.sleep(60)") as worker:
        os.kill(worker.pid, signal.SIGKILL)
        assert await ended(worker) == "killed by signal 9"


async def test_an_exit_is_explained(tmp_path: Path) -> None:
    async with running(tmp_path, Seen(), "sys.exit(3)") as worker:
        assert await ended(worker) == "exited with status 3"


async def test_nonsense_on_the_socket_ends_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path, Seen(), "link.sendall(b'\\xff' * 100); time.sleep(60)") as worker:
        assert (await ended(worker)).startswith("it said what is no message")


async def test_a_worker_that_will_not_go_is_gone_all_the_same(tmp_path: Path) -> None:
    seen = Seen()
    bad = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: time.sleep(60)"
    async with running(tmp_path, seen, bad) as worker:
        await seen.until(lambda: seen.lines == ["deaf"])
        async with asyncio.timeout(5):
            await worker.stop()
    assert not psutil.pid_exists(worker.pid)


async def test_a_flood_of_log_is_bounded(tmp_path: Path) -> None:
    seen = Seen()
    bad = "print('x' * 300_000); print('y\\n' * 100_000); print('end', flush=True); link.recv(1)"
    async with running(tmp_path, seen, bad):
        await seen.until(lambda: seen.lines[-1:] == ["end"])
    assert max(len(line) for line in seen.lines) <= 2_000


def test_workers_die_with_a_killed_provider(tmp_path: Path) -> None:
    home = tmp_path / "w"
    home.mkdir()
    program = (
        "import asyncio, sys; from pathlib import Path; from fallow.adapters.runners.process import *\n"
        "async def main():\n"
        f"    async with ProcessRunner().open(Path({str(home)!r}), WorkerLimits(), print, print) as worker:\n"
        "        print(worker.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as provider:
        assert provider.stdout is not None
        pid = int(provider.stdout.readline())
        provider.kill()
    assert is_gone(pid)


def test_orphans_are_killed_but_not_whoever_has_their_number_now(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as orphan:
        born = psutil.Process(orphan.pid).create_time()
        (tmp_path / f"{orphan.pid}.worker").write_text(str(born - 5))
        assert ProcessRunner().kill_orphans(tmp_path) == 0
        (tmp_path / f"{orphan.pid}.worker").write_text(str(born))
        (tmp_path / "999999999.worker").write_text("1.0")
        (tmp_path / "x.worker").write_text("x")
        assert ProcessRunner().kill_orphans(tmp_path) == 1
        assert orphan.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


async def test_a_start_that_is_cancelled_leaves_no_socket(tmp_path: Path) -> None:
    before = open_sockets()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), running(tmp_path, Seen()):
            pass
    assert open_sockets() == before


STEPS = """
import resource
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [b"x" * (8 << 20) for _ in range(16)]
    del parts
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // (10 << 20))
"""


def test_the_memory_of_a_step_serves_the_next(tmp_path: Path) -> None:
    """The kernel clears no page of the 128 MiB of a step anew."""
    environment = worker_environment(tmp_path, WorkerLimits())

    def cleared_mib(env: dict[str, str]) -> int:
        done = subprocess.run([sys.executable, "-c", STEPS], env=env, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert cleared_mib(environment) <= 2
    usual = {name: value for name, value in environment.items() if not name.startswith("MALLOC_")}
    assert cleared_mib(usual) > 50
