"""What only the fake transport can do; what it shares with the real one is in tests/contracts/test_transport.py."""

from __future__ import annotations

import asyncio

import pytest

from fallow.errors import FallowError
from fallow.sim import transport as transport_module
from fallow.sim.transport import SimConnection, SimNetwork, SimTransport
from fallow.units import NodeId


def two(network: SimNetwork) -> tuple[SimTransport, SimTransport]:
    return network.listen(NodeId(b"1" * 32)), network.listen(NodeId(b"2" * 32))


async def pair(one: SimTransport, other: SimTransport) -> tuple[SimConnection, SimConnection]:
    here = await one.connect(other.address(), 1)
    there = other.arrived.get_nowait()
    assert there is not None
    return here, there


async def fails(work: object) -> None:
    with pytest.raises(FallowError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.code == "E1801"


async def test_a_cut_breaks_what_is_open_and_lets_nothing_through_until_it_heals() -> None:
    network = SimNetwork()
    one, other = two(network)
    third = network.listen(NodeId(b"3" * 32))
    here, _ = await pair(one, other)
    elsewhere, _ = await pair(one, third)
    stream = await here.open()
    network.cut(one.node, other.node)
    await fails(stream.read(1))
    await fails(here.open())
    await fails(other.connect(one.address(), 0.05))
    await (await elsewhere.open()).send(b"x")
    async with asyncio.TaskGroup() as group:
        dial = group.create_task(one.connect(other.address(), 5))
        await asyncio.sleep(0.01)
        network.heal(one.node, other.node)
    assert dial.result().peer == other.node


async def test_a_crash_breaks_everything_of_the_node() -> None:
    network = SimNetwork()
    one, other = two(network)
    here, there = await pair(one, other)
    stream = await here.open()
    network.crash(other)
    await fails(stream.send(b"x"))
    assert here.closed
    assert there.closed
    assert [connection async for connection in other.accepted()] == []
    await fails(one.connect(other.address(), 0.01))


async def test_more_streams_than_allowed_wait_for_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "MAX_STREAMS", 2)
    here, there = await pair(*two(SimNetwork()))
    first, _second = await here.open(), await here.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await here.open()
    async with asyncio.TaskGroup() as group:
        third = group.create_task(here.open())
        await asyncio.sleep(0)
        assert not third.done()
        first.abort()
    waiting = asyncio.gather(here.open(), return_exceptions=True)
    await asyncio.sleep(0)
    await there.close()
    assert isinstance((await waiting)[0], FallowError)


async def test_delays_follow_from_the_seed() -> None:
    async def delays(seed: int) -> list[float]:
        network = SimNetwork(seed, delay_s=0.001)
        slept: list[float] = []

        async def note(seconds: float) -> None:
            slept.append(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", note)
            for _ in range(5):
                await network.pause()
        return slept

    assert await delays(1) == await delays(1) != await delays(2)
