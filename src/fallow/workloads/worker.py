"""The worker process: `python -m fallow.workloads.worker --fd N`. See `wire/worker.py` for what is said on the socket.

It imports only what the work at hand needs: a worker for `echo` is ready in a tenth of a second, without torch. It dies
with its provider, whatever it is doing, so that no orphan goes on using a machine that its owner wants back.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from fallow.errors import FallowError, fail
from fallow.kinds.registry import KINDS
from fallow.wire.worker import (
    NO_TASK,
    DropTask,
    FromWorker,
    LaneAnswers,
    LaneBatch,
    LaneCancel,
    Preload,
    RunTask,
    ToWorker,
    WorkerDone,
    WorkerFailed,
    WorkerFrames,
    WorkerLog,
    WorkerProgress,
    WorkerReady,
    worker_frame,
)
from fallow.workloads.lane import SendAnswers, WorkerLane, code_of, open_lane, refused
from fallow.workloads.memory import bound_memory, leased_ram_bytes, memory_is_out
from fallow.workloads.task import TaskResult, TaskRun, program

READ_BYTES = 1 << 20
PROGRESS_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1
_MAYBE_ONLY_HERE = ("E1708", "E9001")
T = TypeVar("T")
LaneOpener = Callable[[Preload, SendAnswers, Callable[[str], None]], WorkerLane]


class Outbox:
    """The socket's writing end, shared by threads. A provider that does not read makes the writers wait."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        frame = worker_frame(message)
        with self._lock:
            self._link.sendall(frame)


class TaskThread:
    """Runs whole tasks, one at a time, on a thread of its own."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._orders: queue.SimpleQueue[RunTask] = queue.SimpleQueue()
        self._current: RunTask | None = None
        self._cancelled = False
        self._bounded = False
        self._told_s = 0.0
        threading.Thread(target=self._serve, name="task", daemon=True).start()

    def start(self, order: RunTask) -> None:
        if self._current is not None:
            self._outbox.send(WorkerFailed(order.task_id, "E1803", "The worker is busy with another task.", True))
            return
        self._current, self._cancelled, self._told_s = order, False, 0.0
        self._orders.put(order)

    def cancel(self, task_id: bytes) -> None:
        if self._current is not None and self._current.task_id == task_id:
            self._cancelled = True

    def _serve(self) -> None:
        while True:
            order = self._orders.get()
            answer = self._answer(order)
            self._current = None
            self._outbox.send(answer)

    def _answer(self, order: RunTask) -> WorkerDone | WorkerFailed:
        def progress(done: int, total: int, note: str) -> None:
            if self._cancelled:
                raise fail("E1402", "The task was cancelled.")
            now = time.perf_counter()
            if done == total or now - self._told_s >= PROGRESS_EVERY_S:
                self._told_s = now
                self._outbox.send(WorkerProgress(order.task_id, done, total, note[:200]))

        def log(text: str) -> None:
            self._outbox.send(WorkerLog(order.task_id, text[:4000]))

        inputs = {name: Path(path) for name, path in order.inputs.items()}
        work = TaskRun(order.task, inputs, Path(order.outdir), max(1, order.threads), progress, log)
        outcome = attempt(order.task_id, lambda: self._run(work))
        if isinstance(outcome, WorkerFailed):
            return outcome
        return done(order, outcome, {"peak_ram_kib": _peak_ram_kib()})

    def _run(self, work: TaskRun) -> TaskResult:
        run = workload(work.task.kind)
        if not self._bounded:  # once: what is kept between tasks counts
            self._bounded = True
            bound_memory(leased_ram_bytes())
        return run(work)


def done(order: RunTask, result: TaskResult, metrics: dict[str, int]) -> WorkerDone:
    """What the provider is told of a task that was done."""
    files = {name: str(path) for name, path in result.files.items()}
    return WorkerDone(order.task_id, result.value, files, result.metrics | metrics)


def workload(kind: str) -> Callable[[TaskRun], TaskResult]:
    """The program of `kind`. Errors: E1707 for an unknown kind, E1708 when a package that it needs is not installed."""
    found = KINDS.get(kind)
    if found is None:
        raise fail("E1707", f"No workload is called {kind[:40]!r}.")
    return program(found, found.program)


def attempt(task_id: bytes, act: Callable[[], T]) -> WorkerFailed | T:
    """Do `act`, turning whatever it raises into what the provider is told."""
    try:
        return act()
    except FallowError as error:
        # What a task's own content is to blame for fails everywhere; a missing package or a bug may be only ours.
        return WorkerFailed(task_id, error.code, str(error)[:4000], error.retryable or error.code in _MAYBE_ONLY_HERE)
    except OSError as error:
        what = f"A file could not be read or written ({error.strerror or error})."
        return WorkerFailed(task_id, "E1603", what[:4000], retryable=True)
    except Exception as error:  # noqa: BLE001 - the task boundary: a bug in a workload must not take the worker along
        if memory_is_out(error):
            return WorkerFailed(task_id, "E1704", "The worker ran out of memory.", retryable=True)
        code = code_of(error)
        return WorkerFailed(task_id, code, f"{type(error).__name__}: {error}"[:4000], code in _MAYBE_ONLY_HERE)


class Tasks(Protocol):
    """Who does whole tasks, one at a time."""

    def start(self, order: RunTask) -> None: ...

    def cancel(self, task_id: bytes) -> None: ...


class WorkerDesk:
    """Takes what the provider says: whole tasks are for `tasks`, streams for a lane, opened when it is told to. `say`
    answers; loading is timed by `clock`, in seconds."""

    def __init__(
        self, say: Callable[[FromWorker], None], tasks: Tasks, open_lane: LaneOpener, clock: Callable[[], float]
    ) -> None:
        self._say, self._tasks, self._open_lane, self._clock = say, tasks, open_lane, clock
        self._lane: WorkerLane | None = None

    def take(self, message: ToWorker) -> None:
        """One message."""
        match message:
            case LaneBatch(tasks) if self._lane is not None:
                self._lane.take(tasks)
            case LaneBatch(tasks):
                error = fail("E1707", "The worker was not made ready for lane tasks.")
                self._say(LaneAnswers(tuple(refused(task.number, error) for task in tasks)))
            case RunTask():
                self._tasks.start(message)
            case DropTask(task_id):
                self._tasks.cancel(task_id)
            case Preload():
                self._preload(message)
            case LaneCancel(numbers):
                if self._lane is not None:
                    self._lane.cancel(numbers)

    def settle(self) -> None:
        """All that came together was taken."""
        if self._lane is not None:
            self._lane.settle()

    def _preload(self, order: Preload) -> None:
        began = self._clock()

        def log(text: str) -> None:
            self._say(WorkerLog(NO_TASK, text[:4000]))

        lane = attempt(NO_TASK, lambda: self._open_lane(order, self._say, log))
        if isinstance(lane, WorkerFailed):
            self._say(lane)
            return
        self._lane = lane
        self._say(WorkerReady(order.kind, int((self._clock() - began) * 1e3), lane.context_tokens))


def serve(link: socket.socket) -> None:
    """Read the socket and hand out the work until the provider closes its end. Raises ValueError when it sends what is
    no message."""
    frames, outbox = WorkerFrames("worker"), Outbox(link)
    desk = WorkerDesk(outbox.send, TaskThread(outbox), open_lane, time.perf_counter)
    outbox.send(WorkerReady())
    while data := link.recv(READ_BYTES):
        for message in frames.feed(data):
            desk.take(message)  # pyright: ignore[reportArgumentType]
        desk.settle()


def _peak_ram_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies. Elsewhere, and in the instant before, the closed socket does
    it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: list[str]) -> NoReturn:
    """Serve the socket until it closes. Exit status 0 then, 2 when the provider speaks nonsense."""
    parser = argparse.ArgumentParser(prog="fallow-worker")
    parser.add_argument("--fd", type=int, required=True)
    link = socket.socket(fileno=parser.parse_args(arguments).fd)
    _die_with_parent()
    # Threads of tensor libraries that spin while they wait for each other slow each other down many times over on a
    # busy machine; threads that sleep at once do so on an idle one. About ten microseconds are right for both.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Ctrl-C goes to everyone at the terminal; the provider decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        serve(link)
    except ConnectionError:
        status = 0
    except ValueError:
        status = 2
    # Not sys.exit: a thread may be deep in a step or in C++, and nobody waits for it any more.
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
