"""The Transport port in memory: the same promises as iroh's, on one event loop, with faults on demand.

A `SimNetwork` is the wire. Nodes listen on invented addresses; `cut` makes two nodes unable to hear each other,
`crash` ends a node the way `kill -9` does, and `delay` slows every piece down by a seeded amount.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from fallow.errors import FallowError, fail
from fallow.node.loopback import Pipe
from fallow.units import NodeId
from fallow.wire.messages import NodeAddress

MAX_STREAMS = 512
KNOCK_S = 0.05
MAX_WAITING = 256


def gone(peer: NodeId) -> FallowError:
    """What a broken connection raises."""
    return fail("E1801", f"The connection to node {peer.hex()[:12]} is gone.")


class SimStream:
    """`ports.Stream` over two pipes, at the end `end` of a connection."""

    def __init__(self, end: SimConnection, outgoing: Pipe, incoming: Pipe) -> None:
        self._end, self._out, self._in = end, outgoing, incoming

    async def send(self, data: bytes) -> None:
        if self._end.dead:
            raise gone(self._end.peer)
        await self._end.network.carry(self._end, data)
        if not await self._out.write(data):
            raise gone(self._end.peer)
        self._end.network.carried(self._end)

    async def finish(self) -> None:
        if self._out.broken or self._end.dead:
            raise gone(self._end.peer)
        self._out.finish()

    async def read(self, limit: int) -> bytes:
        data = await self._in.read(limit)
        if data is None:
            raise gone(self._end.peer)
        return data

    @property
    def over(self) -> bool:
        return self._out.over and self._in.over

    def abort(self) -> None:
        if not self._end.dead:
            self._out.give_up()
            self._in.break_()

    def break_(self) -> None:
        """Both directions are gone."""
        self._out.break_()
        self._in.break_()


class SimConnection:
    """`ports.Connection`: one end of a pair that `SimNetwork` made."""

    def __init__(self, network: SimNetwork, me: NodeId, peer: NodeId) -> None:
        self.network, self.me, self._peer = network, me, peer
        self._other: SimConnection | None = None
        self._arrived: asyncio.Queue[SimStream | None] = asyncio.Queue()
        self._streams: dict[SimStream, None] = {}
        self._slots = asyncio.Semaphore(MAX_STREAMS)
        self.closed = False
        self.dead = False
        """Whether its node has died: then it says nothing more, not even that it is gone."""

    @property
    def peer(self) -> NodeId:
        return self._peer

    def join(self, other: SimConnection) -> None:
        self._other = other

    async def open(self) -> SimStream:
        await self.network.pause()
        await self._slots.acquire()
        if self.closed or self.dead or self._other is None:
            self._slots.release()  # the next one in line finds out too
            raise gone(self._peer)
        there, here = Pipe(), Pipe()
        stream, mirror = SimStream(self, there, here), SimStream(self._other, here, there)
        self._streams[stream] = None
        there.on_over = here.on_over = lambda: self._forget(stream)
        self._other.arrive(mirror)
        return stream

    def arrive(self, stream: SimStream) -> None:
        self._arrived.put_nowait(stream)

    def _forget(self, stream: SimStream) -> None:
        """Called when either direction is over; the stream is when both are."""
        if stream.over and stream in self._streams:
            del self._streams[stream]
            self._slots.release()

    async def accepted(self) -> AsyncIterator[SimStream]:
        while not self.closed and (stream := await self._arrived.get()) is not None:
            yield stream

    async def close(self) -> None:
        if not self.dead:
            self.drop()

    def drop(self) -> None:
        """Both ends are gone at once, and every stream with them."""
        for end in (self, self._other):
            if end is not None and not end.closed:
                end.closed = True
                end._arrived.put_nowait(None)
                for stream in list(end._streams):
                    stream.break_()
                end._slots.release()


class SimTransport:
    """`ports.Transport` of one node of a `SimNetwork`."""

    def __init__(self, network: SimNetwork, node: NodeId, place: str) -> None:
        self._network, self._node, self._place = network, node, place
        self.arrived: asyncio.Queue[SimConnection | None] = asyncio.Queue(MAX_WAITING + 1)
        self.connections: list[SimConnection] = []
        self.closed = False

    @property
    def node(self) -> NodeId:
        return self._node

    def address(self) -> NodeAddress:
        return NodeAddress(node=self._node, direct=(self._place,))

    async def connect(self, address: NodeAddress, timeout_s: float) -> SimConnection:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._network.dial(self, address)
        except TimeoutError:
            raise fail("E1801", f"Node {address.node.hex()[:12]} did not answer within {timeout_s:g} s.") from None

    async def accepted(self) -> AsyncIterator[SimConnection]:
        while not self.closed and (connection := await self.arrived.get()) is not None:
            yield connection

    def remember(self, connection: SimConnection) -> None:
        self.connections = [found for found in self.connections if not found.closed]
        self.connections.append(connection)

    async def close(self) -> None:
        self._network.leave(self)
        for connection in self.connections:
            await connection.close()


class SimNetwork:
    """The wire between `SimTransport`s. `seed` decides every delay."""

    def __init__(self, seed: int = 0, delay_s: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._delay_s = delay_s
        self._places: dict[str, SimTransport] = {}
        self._cuts: set[frozenset[NodeId]] = set()
        self._next = 1

    def listen(self, node: NodeId, place: str = "") -> SimTransport:
        """A node that can be dialled from now on, at `place` when it is given."""
        place, self._next = place or f"sim:{self._next}", self._next + 1
        self._places[place] = SimTransport(self, node, place)
        return self._places[place]

    async def pause(self) -> None:
        if self._delay_s:
            await asyncio.sleep(self._random.expovariate(1 / self._delay_s))

    async def carry(self, end: SimConnection, data: bytes) -> None:
        """The way of a piece from `end` to its peer. May raise what `gone` gives."""
        await self.pause()

    def carried(self, end: SimConnection) -> None:
        """A piece from `end` has arrived."""

    async def dial(self, caller: SimTransport, address: NodeAddress) -> SimConnection:
        """Knocks again and again while nobody answers, as a real handshake does."""
        while True:
            await self.pause()
            if (connection := self._knock(caller, address)) is not None:
                return connection
            await asyncio.sleep(KNOCK_S)

    def _knock(self, caller: SimTransport, address: NodeAddress) -> SimConnection | None:
        for place in address.direct:
            found = self._places.get(place)
            # Like the real handshake: whoever listens there must hold the key that was dialled.
            if found is None or found.node != address.node or not self.hears(caller.node, found.node):
                continue
            if found.arrived.qsize() >= MAX_WAITING:
                continue
            here, there = SimConnection(self, caller.node, found.node), SimConnection(self, found.node, caller.node)
            here.join(there)
            there.join(here)
            caller.remember(here)
            found.remember(there)
            found.arrived.put_nowait(there)
            return here
        return None

    def leave(self, transport: SimTransport) -> None:
        """Nobody reaches it any more."""
        if not transport.closed:
            transport.closed = True
            self._places = {place: found for place, found in self._places.items() if found is not transport}
            while not transport.arrived.empty():
                transport.arrived.get_nowait()
            transport.arrived.put_nowait(None)

    def crash(self, transport: SimTransport) -> None:
        """End it as `kill -9` does; its peers notice at once, which the real ones do within seconds."""
        self.leave(transport)
        for connection in transport.connections:
            connection.drop()

    def cut(self, one: NodeId, other: NodeId) -> None:
        """They cannot hear each other from now on: what is open dies, new dials go unanswered."""
        self._cuts.add(frozenset((one, other)))
        for transport in self._places.values():
            for connection in transport.connections:
                if frozenset((transport.node, connection.peer)) == frozenset((one, other)):
                    connection.drop()

    def heal(self, one: NodeId, other: NodeId) -> None:
        self._cuts.discard(frozenset((one, other)))

    def hears(self, one: NodeId, other: NodeId) -> bool:
        """Whether they are not cut off from each other."""
        return frozenset((one, other)) not in self._cuts
