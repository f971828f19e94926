"""Floods of memory: messages that never end, answers that never end."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.attacks.target import MIB, Strangers, answer_code, half_a_call, refusal, target, until

from fallow.errors import FallowError, UnavailableError
from fallow.node.held import ALL_BYTES, LITTLE_BYTES, PEER_BYTES, Held
from fallow.node.rpc import Caller, Router, Rpc, Server, serve
from fallow.ports import Connection, Stream
from fallow.sdk import framed
from fallow.sdk.calls import CallStream
from fallow.sim.transport import SimNetwork
from fallow.units import NodeId
from fallow.wire.frames import FrameKind, encode_frame
from fallow.wire.messages import BlobStat, Message, OpenLane, SearchOffers

HALF = 7 * MIB


async def test_half_sent_calls_take_no_memory(tmp_path: Path) -> None:
    """One key opens 32 calls and sends 7 MiB of 8 in each. Gained: 0; the node holds a share, refuses the rest, and
    answers others meanwhile. Cost: 224 MiB of traffic."""
    async with target(tmp_path, "--roles", "bank,directory") as node, Strangers() as strangers:
        before = node.peak_mib()
        connection, honest = await strangers.dial(1, node.address), await strangers.rpc(2)
        streams = await asyncio.gather(*[half_a_call(connection, HALF) for _ in range(32)])
        assert await answer_code(honest, node.address, SearchOffers("train")) == ""
        assert node.peak_mib() - before < PEER_BYTES / MIB + 64
        for stream in streams:
            if stream is not None:
                stream.abort()


async def test_many_keys_hold_no_more_than_the_whole() -> None:
    """Keys are free, so a flood comes from many. Gained: 0; together they hold ALL_BYTES, and a small call of anybody
    is still answered. Cost: the traffic."""
    held = Held()
    calls = [held.call(NodeId(bytes([n]) * 32)) for n in range(64)]
    refused = 0
    for call in calls:
        try:
            call.set(HALF)
        except UnavailableError:
            refused += 1
    assert held.total_bytes <= ALL_BYTES
    assert refused == 64 - ALL_BYTES // HALF
    small = held.call(NodeId(b"h" * 32))
    small.set(LITTLE_BYTES)
    for call in (*calls, small):
        call.close()
    assert held.total_bytes == 0


class Room:
    """A server in the simulator's network that gives back what comes on a stream."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.network, self.router = SimNetwork(), Router()
        self.router.stream(OpenLane)(self._lane)
        self.transport = self.network.listen(NodeId(b"s" * 32))
        self.rpc = Rpc(self.transport, self.router)
        assert self.rpc.server is not None
        self.server: Server = self.rpc.server
        self.task = group.create_task(serve(self.transport, self.router, self.rpc))

    async def _lane(
        self, _caller: Caller, _request: OpenLane, inputs: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        async for one in inputs:
            yield one


async def test_what_a_refused_or_broken_call_held_is_let_go_at_once() -> None:
    """A stranger leaves in the middle of its messages, or is refused. Gained: 0 bytes for 0 seconds."""
    async with asyncio.TaskGroup() as group:
        room = Room(group)
        stranger = room.network.listen(NodeId(b"x" * 32))
        connection = await stranger.connect(room.transport.address(), 1)
        streams = [group.create_task(half_a_call(connection, HALF)) for _ in range(4)]
        await until(lambda: room.server.held.total_bytes == 4 * HALF + 4 * 5)
        fifth = group.create_task(half_a_call(connection, HALF))
        assert await fifth is None
        assert room.server.held.total_bytes <= PEER_BYTES
        for task in streams:
            stream = await task
            assert stream is not None
            stream.abort()
        await connection.close()
        await until(lambda: room.server.held.total_bytes == 0)
        room.task.cancel()


class Liar:
    """A node that answers every call with most of 8 MiB, and then falls silent."""

    def __init__(self, network: SimNetwork, group: asyncio.TaskGroup) -> None:
        self.transport, self._group = network.listen(NodeId(b"l" * 32)), group
        self._tasks = [group.create_task(self._run())]

    async def _run(self) -> None:
        async for connection in self.transport.accepted():
            self._tasks.append(self._group.create_task(self._serve(connection)))

    async def _serve(self, connection: Connection) -> None:
        async for stream in connection.accepted():
            self._tasks.append(self._group.create_task(self._pour(stream)))

    async def _pour(self, stream: Stream) -> None:
        with suppress(FallowError):
            await stream.send(struct.pack(">IB", HALF + 1, FrameKind.REPLY))
            for _ in range(7):
                await stream.send(bytes(MIB))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


async def test_half_an_answer_takes_no_more_than_half_a_call() -> None:
    """A node that we ask many things answers each with most of 8 MiB and falls silent. Gained: 0 beyond its share; our
    calls end with E1803. Cost: the traffic."""
    async with asyncio.TaskGroup() as group:
        network = SimNetwork()
        liar, asker = Liar(network, group), network.listen(NodeId(b"a" * 32))
        async with Rpc(asker) as rpc:
            request = BlobStat(bytes(32))
            calls = [group.create_task(answer_code(rpc, liar.transport.address(), request)) for _ in range(12)]
            await until(lambda: sum(call.done() for call in calls) >= 12 - PEER_BYTES // HALF)
            assert {call.result() for call in calls if call.done()} == {"E1803"}
            assert rpc.held.total_bytes <= PEER_BYTES
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert rpc.held.total_bytes == 0
        liar.stop()


async def test_the_rest_of_a_message_must_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger sends a whole call that takes a stream, then half of an input, and waits. Gained: 0; the call ends
    with E1802 and its bytes are free."""
    monkeypatch.setattr(framed, "HALF_S", 0.05)
    async with asyncio.TaskGroup() as group:
        room = Room(group)
        stranger = room.network.listen(NodeId(b"x" * 32))
        stream = await (await stranger.connect(room.transport.address(), 1)).open()
        call = CallStream(stream, None)
        await call.start(OpenLane(bytes(32)))
        await stream.send(encode_frame(FrameKind.INPUT, bytes(MIB))[:-1])
        assert await refusal(stream) == "E1802"
        await until(lambda: room.server.held.total_bytes == 0)
        room.task.cancel()
