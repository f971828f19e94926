"""The real Clock and Entropy: the only place where Fallow asks the machine for the time or for chance."""

from __future__ import annotations

import asyncio
import os
import time


class SystemClock:
    """`ports.Clock` over the machine's clocks."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; jumps when the machine's clock is set."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since some moment before; never jumps, keeps counting while the process is stopped."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; a negative duration lets other tasks run once."""
        await asyncio.sleep(max(0.0, seconds))


class SystemEntropy:
    """`ports.Entropy` over the operating system's generator, fit for keys."""

    def draw(self, size_bytes: int) -> bytes:
        """Unpredictable bytes. Raises ValueError for a negative size."""
        return os.urandom(size_bytes)
