"""Calls between nodes: one stream per call, one connection per peer, dialled when first needed.

Every request is idempotent (see `wire/messages.py`), so a call that broke before any of its answer was seen is sent
again once, over a new connection: the cached one may have died without anybody noticing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import structlog

from fallow.errors import FallowError, fail
from fallow.node.groups import begin
from fallow.node.held import Held
from fallow.node.loopback import Loopback
from fallow.node.router import Caller, Limits, Router
from fallow.node.server import Server, serve
from fallow.ports import Connection, Transport
from fallow.sdk.calls import NO_DEADLINE_MS, CallStream
from fallow.sdk.framed import OnHeld
from fallow.units import MS_PER_S, NodeId
from fallow.wire.messages import Message, NodeAddress

__all__ = ["CallStream", "Caller", "Limits", "Router", "Rpc", "Server", "serve"]

log = structlog.get_logger()

DIAL_S = 10.0
MOVED_DIAL_S = 2.0
"""How long a call waits for a peer at a new address when there is a connection to the old one."""
IDLE_S = 60.0
SWEEP_S = 5.0
MAX_PEERS = 1024
MAX_KNOWN_PLACES = 64
MAX_DIALLED_PLACES = 16
MAX_RETIRED = 4


@dataclass(eq=False)
class _Peer:
    """What we know of a peer: where it was said to be, the live connection, and how many calls use it."""

    node: NodeId
    places: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    connection: Connection | None = None
    dialled: bool = False
    retired: list[Connection] = field(default_factory=list[Connection])
    dial: asyncio.Task[None] | None = None
    dial_error: FallowError | None = None
    users: int = 0
    used_at: float = 0.0

    def dialling(self) -> asyncio.Task[None] | None:
        """The dial under way; another one from time to time."""
        return self.dial

    def learn(self, address: NodeAddress) -> bool:
        """Note an address; -> whether the node seems to have moved: it was said to be somewhere, and not at any of
        these places. One machine has many addresses, and a peer that called us may have told none of them yet."""
        moved = bool(self.places and address.direct) and self.places.keys().isdisjoint(address.direct)
        for place in reversed(address.direct):
            self.places[place] = None
            self.places.move_to_end(place)
        while len(self.places) > MAX_KNOWN_PLACES:
            self.places.popitem(last=False)
        return moved

    def address(self, relay: str) -> NodeAddress:
        """Everywhere it was said to be, the last word first."""
        return NodeAddress(node=self.node, direct=tuple(reversed(self.places))[:MAX_DIALLED_PLACES], relay=relay)


class Rpc:
    """Calls other nodes. Use as `async with Rpc(transport) as rpc`. With `router`, the node can call itself and answers
    calls that come back over the connections it dialled."""

    def __init__(self, transport: Transport, router: Router | None = None, limits: Limits | None = None) -> None:
        self._transport = transport
        self.server = Server(router, limits) if router is not None else None
        self.held = self.server.held if self.server is not None else Held()
        self._peers: OrderedDict[NodeId, _Peer] = OrderedDict()
        self._life = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._group = await self._life.enter_async_context(asyncio.TaskGroup())
        self._spawn(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Break off all calls and close all connections, at once."""
        self._group, peers = None, list(self._peers.values())
        self._peers.clear()
        for task in self._tasks:
            task.cancel()
        for peer in peers:
            for connection in filter(None, (peer.connection, *peer.retired)):
                await connection.close()
        await self._life.aclose()

    @property
    def node(self) -> NodeId:
        return self._transport.node

    def address(self) -> NodeAddress:
        """Where this node can be called."""
        return self._transport.address()

    async def call(self, address: NodeAddress, request: Message, timeout_s: float = 10.0) -> Message:
        """One request, one reply, within `timeout_s`, which the other side is told. Raises the FallowError that the
        handler failed with; UnavailableError E1801 when the peer cannot be reached or goes away, E1802 when time is up,
        E1803 when it (or this node) has too much open; PeerFault E1102 or E1806 when it talks nonsense or has a bug."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._once(address, request, deadline)
                if reply is None:  # the cached connection was dead
                    reply = await self._once(address, request, deadline, last=True)
        except TimeoutError:
            who = address.node.hex()[:12]
            raise fail("E1802", f"Node {who} did not answer {type(request).__name__} within {timeout_s:g} s.") from None
        assert reply is not None
        return reply

    async def _once(
        self, address: NodeAddress, request: Message, deadline: float, *, last: bool = False
    ) -> Message | None:
        """-> None when it broke, over a connection that was not new, before anything came back."""
        left_s = deadline - asyncio.get_running_loop().time()
        peer = self._peer(address)
        peer.users += 1
        stream: CallStream | None = None
        connection, cached, held = None, False, self.held.call(peer.node)
        try:
            connection, cached = await self._connection(peer, address, left_s)
            stream = CallStream(await connection.open(), None, hold=held.set)
            left_s = deadline - asyncio.get_running_loop().time()
            await stream.start(request, max(1, int(left_s * MS_PER_S)), alone=True)
            return await stream.reply()
        except FallowError as error:
            if error.code != "E1801" or (stream is None and connection is None):
                raise
            if stream is not None and stream.answered:
                raise
            self._lost(peer, connection)
            if not cached or last:
                raise
            return None
        finally:
            if stream is not None:
                stream.abort()
            held.close()
            self._left(peer)

    @asynccontextmanager
    async def open(
        self, address: NodeAddress, request: Message, timeout_s: float | None = None
    ) -> AsyncGenerator[CallStream]:
        """A call that streams, both ways; leaving the block ends it. `timeout_s` bounds the whole call (None: no end);
        reaching the peer is bounded by `DIAL_S` in any case. Raises as `call` does, from here and from iterating. When
        the stream breaks, whoever opened it opens it again: only they know from where."""
        peer = self._peer(address)
        peer.users += 1
        held = self.held.call(peer.node)
        try:
            stream = await self._start(peer, address, request, timeout_s, held.set)
            deadline = asyncio.timeout(timeout_s)
            try:
                async with deadline:
                    yield stream
            except TimeoutError:
                if not deadline.expired():
                    raise
                raise fail("E1802", f"{type(request).__name__} was not done within {timeout_s or 0:g} s.") from None
            finally:
                stream.abort()
        finally:
            held.close()
            self._left(peer)

    async def _start(
        self, peer: _Peer, address: NodeAddress, request: Message, timeout_s: float | None, hold: OnHeld
    ) -> CallStream:
        timeout_ms = NO_DEADLINE_MS if timeout_s is None else int(timeout_s * MS_PER_S)
        for attempt in (1, 2):
            connection, cached = await self._connection(peer, address, min(DIAL_S, timeout_s or DIAL_S))
            try:
                async with asyncio.timeout(DIAL_S):
                    stream = CallStream(await connection.open(), self._spawn, hold=hold)
                    await stream.start(request, timeout_ms)
                return stream
            except TimeoutError:
                raise fail("E1803", f"Node {peer.node.hex()[:12]} takes no more streams from us now.") from None
            except FallowError:
                self._lost(peer, connection)
                if not cached or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    # connections ------------------------------------------------------------------------------------------------------

    def adopt(self, connection: Connection) -> None:
        """Use a connection that a peer dialled for calls to it while there is no other: it may be behind a NAT."""
        peer = self._peers.get(connection.peer)
        if peer is None:
            if len(self._peers) >= MAX_PEERS and not self._forget_one():
                return
            peer = self._peers[connection.peer] = _Peer(connection.peer)
        if peer.connection is None and peer.dial is None:
            peer.connection, peer.dialled = connection, False
            peer.used_at = asyncio.get_running_loop().time()

    def _peer(self, address: NodeAddress) -> _Peer:
        node = NodeId(address.node)
        peer = self._peers.get(node)
        if peer is None:
            if len(self._peers) >= MAX_PEERS and not self._forget_one():
                raise fail("E1803", "This node talks to too many others at once.")
            peer = self._peers[node] = _Peer(node)
        self._peers.move_to_end(node)
        return peer

    def _forget_one(self) -> bool:
        """Drop the peer that was unused for longest; False when all are in use."""
        for node, peer in self._peers.items():
            if not self._in_use(peer):
                del self._peers[node]
                self._close_later(peer)
                return True
        return False

    def _in_use(self, peer: _Peer) -> bool:
        connections = filter(None, (peer.connection, *peer.retired))
        served = self.server is not None and any(map(self.server.busy, connections))
        return peer.users > 0 or peer.dial is not None or served

    async def _connection(self, peer: _Peer, address: NodeAddress, within_s: float) -> tuple[Connection, bool]:
        """-> a connection and whether it is an old one."""
        if peer.node == self._transport.node:
            return self._itself(), False
        moved = peer.learn(address)
        if peer.connection is not None and not moved:
            return peer.connection, True
        before, wait_s = peer.connection, within_s
        if before is not None:  # a node that moved has most likely restarted, but an old connection may still be good
            wait_s = min(MOVED_DIAL_S, within_s)
        if peer.dial is not None and moved:
            peer.dial.cancel()  # it is knocking where nobody lives any more
            peer.dial = None
        if peer.dial is None:
            peer.dial_error = None
            peer.dial = self._spawn(self._dial(peer, peer.address(address.relay)))
        until = asyncio.get_running_loop().time() + wait_s
        while (dial := peer.dialling()) and (left_s := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({dial}, timeout=left_s)
        if peer.connection is not None:
            return peer.connection, peer.connection is before
        raise peer.dial_error or fail("E1801", f"Node {peer.node.hex()[:12]} did not answer within {wait_s:g} s.")

    async def _dial(self, peer: _Peer, address: NodeAddress) -> None:
        """One dial at a time per peer, whoever waits for it."""
        try:
            connection = await self._transport.connect(address, DIAL_S)
        except FallowError as error:
            peer.dial_error = error
            return
        finally:
            if peer.dial is asyncio.current_task():
                peer.dial = None
        self._retire(peer)
        peer.connection, peer.dialled = connection, True
        peer.used_at = asyncio.get_running_loop().time()
        if self.server is not None:
            self._spawn(self.server.run_connection(connection))
        log.debug("connected", peer=peer.node.hex()[:12])

    def _itself(self) -> Connection:
        if self.server is None:
            raise fail("E1801", "This node answers no calls, so it cannot call itself.")
        return Loopback(self.node, self.server.run_stream, self._spawn)

    def _retire(self, peer: _Peer) -> None:
        """Leave an old connection to the calls that are on it, ours and the peer's; it closes with the last of them."""
        if peer.connection is not None:
            peer.retired.append(peer.connection)
            peer.connection = None
            self._close_unused(peer)
            if len(peer.retired) > MAX_RETIRED and self._group is not None:
                self._spawn(peer.retired.pop(0).close())

    def _lost(self, peer: _Peer, connection: Connection | None) -> None:
        """A connection on which a call broke gets no new calls. It is not closed: perhaps only the call was broken, and
        what else is on it goes on; a dead one is given up by the transport."""
        if connection is not None and peer.connection is connection:
            self._retire(peer)

    def _left(self, peer: _Peer) -> None:
        peer.users -= 1
        peer.used_at = asyncio.get_running_loop().time()
        self._close_unused(peer)

    def _close_unused(self, peer: _Peer) -> None:
        """Retired connections with no calls on them: none of ours to that peer, and none of the peer's."""
        if peer.users or self._group is None:
            return
        for connection in list(peer.retired):
            if self.server is None or not self.server.busy(connection):
                peer.retired.remove(connection)
                self._spawn(connection.close())

    def _close_later(self, peer: _Peer) -> None:
        for connection in filter(None, (peer.connection, *peer.retired)):
            if self._group is not None:
                self._spawn(connection.close())

    async def _sweep(self) -> None:
        """Close the connections that we dialled and nobody uses; the other side closes those that it dialled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for node, peer in list(self._peers.items()):
                self._close_unused(peer)
                if self._in_use(peer) or now - peer.used_at < IDLE_S:
                    continue
                del self._peers[node]
                if peer.dialled:
                    self._close_later(peer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = begin(self._group, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
