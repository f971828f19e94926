"""How many connections and calls a server keeps; what it answers is in test_rpc.py and test_router.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from fallow.errors import FallowError
from fallow.node.router import Caller, Limits, Router
from fallow.node.server import Server, serve
from fallow.ports import Connection
from fallow.sdk.calls import CallStream
from fallow.sim.transport import SimNetwork, SimTransport
from fallow.units import NodeId
from fallow.wire.messages import CancelTask, Message, Ok

WORD = bytes(32)
LIMITS = Limits(calls_per_peer=3, calls=5, connections_per_peer=2, connections=4)


class Held:
    """A server whose calls take until `release` is set."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.network, self.group = SimNetwork(), group
        self.release = asyncio.Event()
        self.running = 0
        router = Router()
        router.on(CancelTask)(self.hold)
        self.server = Server(router, LIMITS)
        self.transport = self.network.listen(NodeId(b"s" * 32))
        self.task = group.create_task(self.server.run(self.transport))

    async def hold(self, _caller: Caller, _request: CancelTask) -> Message:
        self.running += 1
        try:
            await self.release.wait()
        finally:
            self.running -= 1
        return Ok()

    def client(self, number: int) -> SimTransport:
        return self.network.listen(NodeId(bytes([number]) * 32))

    async def dial(self, client: SimTransport) -> Connection:
        return await client.connect(self.transport.address(), 1)

    async def call(self, connection: Connection) -> str:
        """-> "ok", or the code of what went wrong."""
        try:
            stream = CallStream(await connection.open(), None)
            await stream.start(CancelTask(WORD, WORD), 5000, alone=True)
            await stream.reply()
        except FallowError as error:
            return error.code
        return "ok"


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    async with AsyncExitStack() as stack:
        made = Held(await stack.enter_async_context(asyncio.TaskGroup()))
        yield made
        made.task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.001)


async def test_calls_are_counted_over_all_connections_of_a_peer(held: Held) -> None:
    client = held.client(1)
    one, two = await held.dial(client), await held.dial(client)
    calls = [held.group.create_task(held.call(connection)) for connection in (one, one, two)]
    await until(lambda: held.running == 3)
    assert await held.call(two) == "E1803"
    other = await held.dial(held.client(2))
    calls += [held.group.create_task(held.call(other)) for _ in range(2)]
    await until(lambda: held.running == 5)
    assert await held.call(other) == "E1803"  # the limit of all together
    held.release.set()
    assert await asyncio.gather(*calls) == ["ok"] * 5
    assert await held.call(two) == "ok"


async def test_the_oldest_connection_of_a_peer_makes_room(held: Held) -> None:
    held.release.set()
    client = held.client(1)
    connections = [await held.dial(client) for _ in range(3)]
    await until(lambda: connections[0].closed)  # type: ignore[attr-defined]
    assert [await held.call(connection) for connection in connections] == ["E1801", "ok", "ok"]


async def test_too_many_connections_are_closed_at_once(held: Held) -> None:
    held.release.set()
    connections = [await held.dial(held.client(number)) for number in range(1, 6)]
    await until(lambda: connections[4].closed)  # type: ignore[attr-defined]
    assert [await held.call(connection) for connection in connections] == ["ok"] * 4 + ["E1801"]
    await connections[0].close()
    await asyncio.sleep(0.01)
    assert await held.call(await held.dial(held.client(9))) == "ok"


async def test_calls_end_with_their_connection(held: Held) -> None:
    connection = await held.dial(held.client(1))
    call = held.group.create_task(held.call(connection))
    await until(lambda: held.running == 1)
    assert any(held.server.busy(found) for found in held.transport.connections)
    await connection.close()
    assert await call == "E1801"
    await until(lambda: held.running == 0)
    assert not any(held.server.busy(found) for found in held.transport.connections)


async def test_serving_ends_with_the_transport() -> None:
    transport = SimNetwork().listen(NodeId(b"s" * 32))
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        task = group.create_task(serve(transport, Router()))
        await asyncio.sleep(0)
        await transport.close()
    assert task.done()
