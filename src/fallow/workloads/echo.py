"""The smallest workloads. `echo` gives its parameters back: what is left to measure is Fallow itself. `spin` burns a
known amount of CPU and gives a result that anyone can check: BLAKE3 iterated N times, where the parameters are N in
decimal."""

from __future__ import annotations

from blake3 import blake3

from fallow.errors import fail
from fallow.workloads.task import Outcome, Work

MAX_SPINS = 10**12
SPINS_A_STEP = 50_000


def run_echo(work: Work) -> Outcome:
    """One unit; the value is the parameters."""
    work.progress(1, 1, "")
    return Outcome(work.task.params)


def run_spin(work: Work) -> Outcome:
    """About a microsecond a spin on one core; can be cancelled every SPINS_A_STEP."""
    total = spins(work.task.params)
    state, done = start(work.task.seed), 0
    while done < total:
        count = min(SPINS_A_STEP, total - done)
        state, done = spin(state, count), done + count
        work.progress(done, total, "")
    return Outcome(state)


def spins(params: bytes) -> int:
    """How many iterations the parameters ask for. Errors: E1707 when they are no number, or too many."""
    if not params.isdigit() or len(params) > 13 or int(params) > MAX_SPINS:
        raise fail("E1707", f"A spin takes a number up to {MAX_SPINS}.")
    return int(params)


def start(seed: int) -> bytes:
    """What a spin starts from."""
    return blake3(seed.to_bytes(8, "big")).digest()


def spin(state: bytes, count: int) -> bytes:
    """Hash `state` `count` times over."""
    for _ in range(count):
        state = blake3(state).digest()
    return state
