"""The smallest workloads. `echo` gives its parameters back: what is left to measure is Fallow itself. `spin` burns a
known amount of CPU and gives a result that anyone can check: BLAKE3 iterated N times, where the parameters are N in
decimal."""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from fallow.kinds.spin import spins
from fallow.wire.worker import Preload
from fallow.workloads.lane import QuickLane, SendAnswers, WorkerLane
from fallow.workloads.task import TaskResult, TaskRun

SPINS_A_STEP = 50_000


def run_echo(work: TaskRun) -> TaskResult:
    """One unit; the value is the parameters."""
    work.progress(1, 1, "")
    return TaskResult(work.task.params)


def run_spin(work: TaskRun) -> TaskResult:
    """About a microsecond a spin on one core; can be cancelled every SPINS_A_STEP."""
    total = spins(work.task.params)
    state, done = start(work.task.seed), 0
    while done < total:
        count = min(SPINS_A_STEP, total - done)
        state, done = spin(state, count), done + count
        work.progress(done, total, "")
    return TaskResult(state)


def start(seed: int) -> bytes:
    """What a spin starts from."""
    return blake3(seed.to_bytes(8, "big")).digest()


def spin(state: bytes, count: int) -> bytes:
    """Hash `state` `count` times over."""
    for _ in range(count):
        state = blake3(state).digest()
    return state


def echo_lane(order: Preload, tell: SendAnswers, log: Callable[[str], None]) -> WorkerLane:
    """Answers with the parameters."""
    return QuickLane(lambda task: task.params, tell)


def spin_lane(order: Preload, tell: SendAnswers, log: Callable[[str], None]) -> WorkerLane:
    """Spins while the others wait: for tasks of some milliseconds."""
    return QuickLane(lambda task: spin(start(task.seed), spins(task.params)), tell)
