"""A node's calls to itself; how `Rpc` uses them is in test_rpc.py."""

from __future__ import annotations

import asyncio

from fallow.node.loopback import Loopback
from fallow.ports import Connection, Stream
from fallow.units import NodeId

ME = NodeId(b"m" * 32)


async def test_a_stream_to_oneself_behaves_like_any_other() -> None:
    seen: list[NodeId] = []

    async def echo(connection: Connection, stream: Stream) -> None:
        seen.append(connection.peer)
        while data := await stream.read(1 << 16):
            await stream.send(data)
        await stream.finish()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        loopback = Loopback(ME, echo, group.create_task)
        stream = await loopback.open()
        got = bytearray()

        async def read() -> None:
            while piece := await stream.read(1 << 16):
                got.extend(piece)

        reading = group.create_task(read())
        for _ in range(100):
            await stream.send(bytes(50_000))
        await stream.finish()
        await reading
        stream.abort()
    assert len(got) == 5_000_000
    assert seen == [ME]
    assert loopback.peer == ME


async def test_nobody_else_comes_in_that_way() -> None:
    async def never(_connection: Connection, _stream: Stream) -> None:
        raise AssertionError

    async with asyncio.TaskGroup() as group:
        loopback = Loopback(ME, never, group.create_task)
        assert [stream async for stream in loopback.accepted()] == []
        await loopback.close()


async def test_aborting_wakes_the_other_end() -> None:
    ended = asyncio.Event()

    async def wait(_connection: Connection, stream: Stream) -> None:
        assert await stream.read(10) == b""
        ended.set()

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        stream = await Loopback(ME, wait, group.create_task).open()
        stream.abort()
        await ended.wait()
