"""What the network of a simulated pool does to a message."""

from __future__ import annotations

import asyncio

import pytest

from fallow.errors import FallowError
from fallow.sim.loop import VirtualLoop, play
from fallow.sim.plan import Plan
from fallow.sim.transport import SimStream
from fallow.sim.weather import Weather
from fallow.units import NodeId

ONE, OTHER = NodeId(b"1" * 32), NodeId(b"2" * 32)


async def pair(weather: Weather) -> tuple[SimStream, SimStream]:
    here, there = weather.listen(ONE), weather.listen(OTHER)
    near = await here.connect(there.address(), 5)
    far = there.arrived.get_nowait()
    assert far is not None
    opened = await near.open()
    async for stream in far.accepted():
        return opened, stream
    raise AssertionError


def plan(**how: float) -> Plan:
    return Plan((), (), **how)  # type: ignore[arg-type]


def test_a_message_takes_its_time_and_leaves_a_trace() -> None:
    async def main(loop: VirtualLoop) -> tuple[float, bytes]:
        weather = Weather(1, plan(delay_ms=100))
        near, far = await pair(weather)
        await near.send(b"x")
        assert await far.read(10) == b"x"
        return loop.time(), weather.trace.digest()

    (took_s, trace), again = play(main), play(main)
    assert took_s > 0.001
    assert (took_s, trace) == again


def test_what_is_held_comes_late() -> None:
    async def main(loop: VirtualLoop) -> float:
        weather = Weather(1, plan())
        near, _ = await pair(weather)
        weather.hold([ONE], [OTHER], 30.0)
        await near.send(b"x")
        return loop.time()

    assert 30.0 <= play(main) < 31.0


def test_a_lost_message_breaks_its_connection() -> None:
    async def main(_loop: VirtualLoop) -> None:
        near, far = await pair(Weather(1, plan(loss=1.0)))
        for broken in (near.send(b"x"), far.read(1)):
            with pytest.raises(FallowError) as gone:
                await broken
            assert gone.value.code == "E1801"

    play(main)


def test_the_dead_say_nothing_not_even_that_they_are_gone() -> None:
    async def main(loop: VirtualLoop) -> float:
        weather = Weather(3, plan())
        near, far = await pair(weather)
        weather.die(next(t for t in weather._places.values() if t.node == OTHER))
        far.abort()
        with pytest.raises(FallowError):
            await far.send(b"x")
        with pytest.raises(FallowError):
            async with asyncio.timeout(10):
                await near.read(1)
        return loop.time()

    assert play(main) < 3.0
