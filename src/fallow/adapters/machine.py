"""The computer that this process runs on, as the rooms above ask about it."""

from __future__ import annotations

import os
from pathlib import Path

from fallow.adapters import hardware
from fallow.adapters.exactness import exactness
from fallow.adapters.idle import IdleReader
from fallow.ports import Clock
from fallow.rules.idle import Reading
from fallow.wire.messages import Hardware


class ThisMachine:
    """Measured, not declared."""

    def __init__(self, clock: Clock) -> None:
        self._idle = IdleReader(clock)

    def measure(self, folder: Path, threads: int) -> Hardware:
        return hardware.measure(folder, threads)

    def can_do(self, kind: str) -> bool:
        return hardware.can_do(kind)

    def speeds(self, folder: Path, threads: int) -> dict[str, int]:
        return hardware.speeds(folder, threads)

    def exactness(self, threads: int) -> str:
        return exactness(threads)

    def reading(self, ours: set[int]) -> Reading:
        return self._idle.read({os.getpid(), *ours})
