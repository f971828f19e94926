"""The simulated world: one virtual clock, one queue of things to come, one seeded source of chance, and a trace.

Nothing here waits or reads a real clock. Two runs with one seed do the same things in the same order; `World.trace` is
a hash over all that happened, so that a test can say so."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from blake3 import blake3

GENESIS_MS = 1_700_000_000_000
"""When every simulated world begins."""
MAX_STEPS = 400_000


class Violation(AssertionError):
    """Something happened that must never happen, whatever the faults."""


class World:
    """The clock and the queue. `rng` is the only source of chance; `checks` run after every step and raise
    Violation."""

    def __init__(self, seed: int, *, keep_lines: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now_ms = GENESIS_MS
        self.steps = 0
        self.lines: list[str] = []
        self.checks: list[Callable[[], None]] = []
        self._keep_lines = keep_lines
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._hash = blake3()

    @property
    def elapsed_ms(self) -> int:
        """Virtual time since the world began."""
        return self.now_ms - GENESIS_MS

    @property
    def trace(self) -> str:
        """The hash of all that happened so far."""
        return self._hash.hexdigest()

    def note(self, line: str) -> None:
        """Something happened; part of the trace."""
        text = f"{self.elapsed_ms:>8} {line}"
        self._hash.update(text.encode())
        if self._keep_lines:
            self.lines.append(text)

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Do `act` in `delay_ms`. Of things due at one moment the first asked for comes first."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + max(0, delay_ms), self._count, act))

    def chance(self, probability: float) -> bool:
        """A biased coin. Throws nothing for 0, so that switching a fault off is not itself a change of luck."""
        return probability > 0 and self.rng.random() < probability

    def run(self, until: Callable[[], bool], limit_ms: int) -> bool:
        """Step until `until` holds (-> True), or `limit_ms` of virtual time or all work is over (-> False). Raises
        Violation from a check."""
        while not until():
            if not self._queue or self._queue[0][0] > GENESIS_MS + limit_ms:
                return until()
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Violation(f"no end after {MAX_STEPS} steps")
            self.now_ms, _, act = heapq.heappop(self._queue)
            act()
            for check in self.checks:
                check()
        return True
