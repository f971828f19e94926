from __future__ import annotations

import asyncio
import time

import pytest

from fallow.sim.loop import Stuck, VirtualLoop, play


def test_time_jumps_to_the_next_timer() -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        seen: list[float] = []

        async def note(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            seen.append(loop.time())

        async with asyncio.TaskGroup() as group:
            for delay_s in (86_400.0, 3.0, 0.5):
                group.create_task(note(delay_s))
        return seen

    began = time.perf_counter()
    assert play(main) == [0.5, 3.0, 86_400.0]
    assert time.perf_counter() - began < 5


def test_what_would_run_in_a_thread_runs_in_order() -> None:
    async def main(_loop: VirtualLoop) -> list[int]:
        seen: list[int] = []
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(asyncio.to_thread(seen.append, number))
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return seen

    assert play(main) == [0, 1, 2, 3, 4]


def test_waiting_for_nothing_is_told() -> None:
    async def main(_loop: VirtualLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        play(main)


def test_tasks_are_cancelled_in_the_order_in_which_they_were_made() -> None:
    async def main(_loop: VirtualLoop) -> list[int]:
        seen: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                seen.append(number)

        async def breaks() -> None:
            await asyncio.sleep(1)
            raise ValueError

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(wait(number))
                group.create_task(breaks())
        return seen

    first = play(main)
    assert sorted(first) == list(range(40))
    assert all(play(main) == first for _ in range(3))
