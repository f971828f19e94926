"""What every Transport promises, tried on iroh over loopback and on the simulator's fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import blake3
import pytest

from fallow.adapters.iroh_transport import IrohTransport
from fallow.errors import FallowError
from fallow.ports import Connection, Stream, Transport
from fallow.sim.transport import SimNetwork
from fallow.units import NodeId
from fallow.wire.messages import NodeAddress

Listen = Callable[[int], Awaitable[Transport]]
"""Number of the key -> a new transport that listens somewhere with it."""

MOST_IN_FLIGHT = 16 << 20


@pytest.fixture(params=["iroh", "sim"])
async def listen(request: pytest.FixtureRequest) -> AsyncIterator[Listen]:
    network, made = SimNetwork(seed=1, delay_s=0.0005), list[Transport]()

    async def start(number: int) -> Transport:
        seed = blake3.blake3(b"transport %d" % number).digest()
        made.append(await IrohTransport.bind(seed) if request.param == "iroh" else network.listen(NodeId(seed)))
        return made[-1]

    yield start
    for transport in made:
        await transport.close()


async def connected(one: Transport, other: Transport) -> tuple[Connection, Connection]:
    """-> the dialling and the accepting end."""
    async with aclosing(cast(Any, other.accepted())) as arrived:
        here, there = await asyncio.gather(one.connect(other.address(), 5), anext(arrived))
    return here, there


async def stream_between(here: Connection, there: Connection) -> tuple[Stream, Stream]:
    """A stream exists for the accepting side when the first byte has arrived; it is read here."""
    opened = await here.open()
    await opened.send(b"!")
    accepted = await first(there)
    assert await accepted.read(1) == b"!"
    return opened, accepted


async def first(connection: Connection) -> Stream:
    async with aclosing(cast(Any, connection.accepted())) as arrived:
        return await anext(arrived)


async def read_all(stream: Stream) -> bytes:
    pieces: list[bytes] = []
    while piece := await stream.read(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


async def ask_something(connection: Connection) -> bytes:
    stream = await connection.open()
    await stream.send(b"!")
    return await stream.read(1)


def code(caught: pytest.ExceptionInfo[FallowError]) -> str:
    return caught.value.code


async def test_both_ends_know_who_the_other_is(listen: Listen) -> None:
    one, other = await listen(1), await listen(2)
    here, there = await connected(one, other)
    assert here.peer == other.node == other.address().node
    assert there.peer == one.node
    assert one.node != other.node
    assert len(one.node) == 32


async def test_nobody_can_answer_for_another_key(listen: Listen) -> None:
    caller, honest, impostor = await listen(1), await listen(2), await listen(3)
    lie = NodeAddress(node=honest.node, direct=impostor.address().direct)
    with pytest.raises(FallowError) as caught:
        await caller.connect(lie, 0.5)
    assert code(caught) == "E1801"


@pytest.mark.parametrize("direct", [(), ("127.0.0.1:9",), ("not an address",), ("[::1]:9", "host.invalid:1")])
async def test_dialling_nobody_fails_in_time(listen: Listen, direct: tuple[str, ...]) -> None:
    caller, other = await listen(1), await listen(2)
    async with asyncio.timeout(3):
        with pytest.raises(FallowError) as caught:
            await caller.connect(NodeAddress(node=other.node, direct=direct), 0.2)
    assert code(caught) == "E1801"
    assert caught.value.retryable


async def test_a_key_that_is_no_key_is_refused(listen: Listen) -> None:
    caller = await listen(1)
    with pytest.raises(FallowError) as caught:
        await caller.connect(NodeAddress(node=b"\xff" * 32, direct=("127.0.0.1:9",)), 0.2)
    assert code(caught) == "E1801"


async def test_bytes_arrive_in_order_and_the_end_is_seen(listen: Listen) -> None:
    near, far = await stream_between(*await connected(await listen(1), await listen(2)))
    for word in (b"one ", b"two ", b"three"):
        await near.send(word)
    await near.finish()
    assert await read_all(far) == b"one two three"
    assert await far.read(10) == b""
    await far.send(b"and back")
    await far.finish()
    assert await read_all(near) == b"and back"


async def test_read_returns_at_most_the_limit(listen: Listen) -> None:
    near, far = await stream_between(*await connected(await listen(1), await listen(2)))
    await near.send(bytes(range(100)))
    await near.finish()
    got: list[bytes] = []
    while piece := await far.read(7):
        assert len(piece) <= 7
        got.append(piece)
    assert b"".join(got) == bytes(range(100))


async def test_a_big_transfer_arrives_intact_in_both_directions(listen: Listen) -> None:
    near, far = await stream_between(*await connected(await listen(1), await listen(2)))
    data = blake3.blake3(b"big").digest(length=12_345_678)

    async def write(stream: Stream) -> None:
        for start in range(0, len(data), 1 << 18):
            await stream.send(data[start : start + (1 << 18)])
        await stream.finish()

    _, _, there, back = await asyncio.gather(write(near), write(far), read_all(far), read_all(near))
    assert there == data
    assert back == data


async def test_many_streams_at_once_do_not_mix(listen: Listen) -> None:
    here, there = await connected(await listen(1), await listen(2))

    async def echo(stream: Stream) -> None:
        await stream.send(await read_all(stream))
        await stream.finish()

    async def serve() -> None:
        async with asyncio.TaskGroup() as group:
            served = 0
            async for stream in there.accepted():
                group.create_task(echo(stream))
                if (served := served + 1) == 200:
                    return

    async def ask(number: int) -> bytes:
        stream = await here.open()
        await stream.send(b"%d" % number * 100)
        await stream.finish()
        return await read_all(stream)

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        answers = [group.create_task(ask(number)) for number in range(200)]
    assert [answer.result() for answer in answers] == [b"%d" % number * 100 for number in range(200)]


async def test_a_slow_reader_stops_the_writer(listen: Listen) -> None:
    near, far = await stream_between(*await connected(await listen(1), await listen(2)))
    taken = 0

    async def pour() -> None:
        nonlocal taken
        while True:
            await near.send(bytes(1 << 16))
            taken += 1 << 16

    async with asyncio.TaskGroup() as group:
        pouring = group.create_task(pour())
        while True:  # until nothing more is taken for a while
            before = taken
            await asyncio.sleep(0.3)
            if before == taken:
                break
            assert taken < MOST_IN_FLIGHT
        held = taken
        drained = 0
        while drained < held:  # and on it goes once there is room
            drained += len(await far.read(1 << 18))
        async with asyncio.timeout(5):
            while taken == held:
                await asyncio.sleep(0.01)
        pouring.cancel()


async def test_abort_is_an_error_for_the_peer_and_not_an_end(listen: Listen) -> None:
    near, far = await stream_between(*await connected(await listen(1), await listen(2)))
    await near.send(b"half")
    near.abort()
    with pytest.raises(FallowError) as caught:  # else it ended as if it were complete
        await read_all(far)
    assert code(caught) == "E1801"
    near.abort()  # harmless


async def test_abort_wakes_whoever_waits_on_this_end(listen: Listen) -> None:
    near, _far = await stream_between(*await connected(await listen(1), await listen(2)))

    async def pour() -> None:
        while True:
            await near.send(bytes(1 << 18))

    results = asyncio.gather(near.read(10), pour(), return_exceptions=True)
    await asyncio.sleep(0.1)
    near.abort()
    async with asyncio.timeout(2):
        read, sent = await results
    assert isinstance(read, FallowError)
    assert read.code == "E1801"
    assert isinstance(sent, FallowError)
    for again in (near.read(1), near.send(b"x")):
        with pytest.raises(FallowError):
            await again


async def test_an_aborted_stream_leaves_its_neighbours_alone(listen: Listen) -> None:
    here, there = await connected(await listen(1), await listen(2))
    bad, _ = await stream_between(here, there)
    good, far = await stream_between(here, there)
    bad.abort()
    await good.send(b"still here")
    assert await far.read(100) == b"still here"


async def test_closing_a_connection_ends_its_streams_and_iterators(listen: Listen) -> None:
    here, there = await connected(await listen(1), await listen(2))
    near, far = await stream_between(here, there)
    waiting = asyncio.gather(near.read(1), far.read(1), return_exceptions=True)
    await asyncio.sleep(0.05)
    await here.close()
    async with asyncio.timeout(3):
        assert [getattr(error, "code", error) for error in await waiting] == ["E1801", "E1801"]
        assert [stream async for stream in there.accepted()] == []
        assert [stream async for stream in here.accepted()] == []
    with pytest.raises(FallowError) as caught:
        await here.open()
    assert code(caught) == "E1801"


async def test_closing_a_transport_frees_everybody_who_waits(listen: Listen) -> None:
    one, other = await listen(1), await listen(2)
    here, _there = await connected(one, other)

    async def arrivals() -> int:
        return len([connection async for connection in other.accepted()])

    async with asyncio.timeout(3), asyncio.TaskGroup() as group:
        counted = group.create_task(arrivals())
        await asyncio.sleep(0.05)
        await other.close()
    assert counted.result() == 0
    with pytest.raises(FallowError):
        await ask_something(here)


async def test_a_peer_that_restarts_elsewhere_with_its_key_is_found_again(listen: Listen) -> None:
    one, before = await listen(1), await listen(2)
    await connected(one, before)
    await before.close()
    after = await listen(2)
    assert after.node == before.node
    assert after.address() != before.address()
    here, there = await connected(one, after)
    near, far = await stream_between(here, there)
    await near.send(b"again")
    assert await far.read(100) == b"again"


async def test_cancelling_a_read_loses_nothing_of_other_streams(listen: Listen) -> None:
    here, there = await connected(await listen(1), await listen(2))
    near, far = await stream_between(here, there)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await far.read(100)
    other_near, other_far = await stream_between(here, there)
    await other_near.send(b"fine")
    assert await other_far.read(100) == b"fine"
    near.abort()
