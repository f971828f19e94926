"""Who may call this node, and how much at once: accepts connections and answers the calls on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from fallow.node.held import Held
from fallow.node.router import Caller, Limits, Router, answer, refuse
from fallow.ports import Connection, Stream, Transport
from fallow.units import NodeId


class Adopter(Protocol):
    """What a server needs of an `Rpc`."""

    @property
    def server(self) -> Server | None: ...

    def adopt(self, connection: Connection) -> None: ...


class Server:
    """Answers calls with a router, within limits that hold over all connections of a peer."""

    def __init__(self, router: Router, limits: Limits | None = None) -> None:
        self.router, self.limits, self.held = router, limits or Limits(), Held()
        self._calls: Counter[NodeId] = Counter()
        self._busy: Counter[Connection] = Counter()
        self._total = 0
        self._connections: dict[NodeId, list[Connection]] = {}

    def busy(self, connection: Connection) -> bool:
        """Whether calls of the peer's are being answered on it."""
        return self._busy[connection] > 0

    async def run(self, transport: Transport, rpc: Adopter | None = None) -> None:
        """Answer everybody who connects, until the transport closes or this is cancelled."""
        async with asyncio.TaskGroup() as group:
            async for connection in transport.accepted():
                if not await self._admit(connection):
                    continue
                group.create_task(self._run_admitted(connection))
                if rpc is not None:
                    rpc.adopt(connection)

    async def _admit(self, connection: Connection) -> bool:
        """One key opening connection after connection loses its oldest: after a crash, that is the dead one."""
        if sum(map(len, self._connections.values())) >= self.limits.connections:
            await connection.close()
            return False
        mine = self._connections.setdefault(connection.peer, [])
        mine.append(connection)
        if len(mine) > self.limits.connections_per_peer:
            await mine[0].close()
        return True

    async def _run_admitted(self, connection: Connection) -> None:
        try:
            await self.run_connection(connection)
        finally:
            mine = self._connections[connection.peer]
            mine.remove(connection)
            if not mine:
                del self._connections[connection.peer]
            await connection.close()

    async def run_connection(self, connection: Connection) -> None:
        """Answer the calls that the peer opens on a connection, whoever dialled it. Ends with the connection; calls
        that are still being answered then are cancelled, since nobody can hear the answer."""
        tasks: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            async for stream in connection.accepted():
                task = group.create_task(self.run_stream(connection, stream))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            for task in tasks:
                task.cancel()

    async def run_stream(self, connection: Connection, stream: Stream) -> None:
        """Answer one call."""
        peer = connection.peer
        if self._calls[peer] >= self.limits.calls_per_peer or self._total >= self.limits.calls:
            return await refuse(stream)
        self._count(peer, connection, 1)
        held = self.held.call(peer)
        try:
            await answer(self.router, Caller(peer), stream, self.limits, held.set)
        finally:
            held.close()
            self._count(peer, connection, -1)

    def _count(self, peer: NodeId, connection: Connection, change: int) -> None:
        self._total += change
        self._calls[peer] += change
        self._busy[connection] += change
        if not self._calls[peer]:
            del self._calls[peer]
        if not self._busy[connection]:
            del self._busy[connection]


async def serve(transport: Transport, router: Router, rpc: Adopter | None = None, limits: Limits | None = None) -> None:
    """Answer calls until cancelled or the transport closes. With `rpc` (made with the same router), its limits are
    shared, and it may call peers back over the connections that they opened."""
    server = rpc.server if rpc is not None and rpc.server is not None else Server(router, limits)
    await server.run(transport, rpc)
