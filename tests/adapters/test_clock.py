from __future__ import annotations

import time

import pytest

from fallow.adapters.clock import SystemClock, SystemEntropy


def test_the_clock_is_the_machines() -> None:
    before, now, after = time.time_ns() // 1_000_000, SystemClock().now_ms(), time.time_ns() // 1_000_000
    assert before <= now <= after


async def test_sleeping_takes_at_least_its_time_and_never_a_negative_one() -> None:
    clock = SystemClock()
    start = clock.monotonic_s()
    await clock.sleep(0.01)
    assert clock.monotonic_s() - start >= 0.009
    await clock.sleep(-5)


def test_draws_are_as_long_as_asked_and_differ() -> None:
    entropy = SystemEntropy()
    assert [len(entropy.draw(size)) for size in (0, 1, 32)] == [0, 1, 32]
    assert len({entropy.draw(32) for _ in range(100)}) == 100
    with pytest.raises(ValueError, match="negative"):
        entropy.draw(-1)
