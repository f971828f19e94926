"""The Transport port over iroh: QUIC, dialled by public key.

Defends against: somebody else answering for a node (the handshake proves the key), addresses that name a relay which is
not our own, peers that open streams without end
or stall in the handshake, peers that make us hold what we do not read (flow control windows). Does not defend against:
whoever can flood the UDP port. Note that the binding also opens a second, random UDP port on all IPv6 interfaces; it
answers nothing but the same handshake.

QUIC itself notices a vanished peer after 30 seconds only. So whenever nothing has come in on a connection for a tick,
one small datagram is sent, which any living peer's QUIC stack acknowledges, busy or not; after `SILENT_TICKS` in a row
without a sign of life the connection is given up and everything that waits on it fails with E1801.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import iroh
from iroh.iroh_ffi import uniffi_set_event_loop  # pyright: ignore[reportUnknownVariableType]

from fallow.adapters import iroh_garbage, iroh_memmove, iroh_polling
from fallow.errors import FallowError, fail
from fallow.units import NodeId
from fallow.wire.messages import NodeAddress

T = TypeVar("T")

ALPN = b"fallow/1"
MAX_STREAMS = 512
"""Streams that one peer may hold open on one connection; QUIC makes it wait before the next."""
UNREAD_BYTES = 256 << 20
UNREAD_PART = 64
LEAST_UNREAD_BYTES = 1 << 16
"""What peers may make us hold because our tasks read slowly: a connection gets a 64th of what the others have left of
the whole (4 MiB at first; a stream alone: 1.25 MB), so that keys without number do not add up."""
MAX_HANDSHAKES = 64
MAX_WAITING = 256
MAX_FROM_ADDRESS = 512
"""Connections from one IP address: keys are free, addresses are not."""
HANDSHAKE_S = 5.0
CLOSE_S = 0.5
TICK_S = 0.5
SILENT_TICKS = 5
_RESET = 1


def _gone(peer: NodeId, error: iroh.IrohError | None = None) -> FallowError:
    why = f" ({error.message().splitlines()[0][:200]})" if error is not None else ""
    return fail("E1801", f"The connection to node {peer.hex()[:12]} is gone{why}.")


class IrohStream:
    """`ports.Stream` over one QUIC stream."""

    def __init__(self, stream: iroh.BiStream, peer: NodeId) -> None:
        self._peer = peer
        self._sender, self._receiver = stream.send(), stream.recv()
        self._blocked: set[asyncio.Task[Any]] = set()
        self._aborted = False
        self._finished = False

    async def send(self, data: bytes) -> None:
        """Pieces of 256 KiB are the fastest; many small ones cost 0.1 ms each."""
        await self._interruptible(self._sender.write_all(data))

    async def finish(self) -> None:
        await self._interruptible(self._sender.finish())
        self._finished = True

    async def read(self, limit: int) -> bytes:
        return await self._interruptible(self._receiver.read(limit))

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` until `abort` is called: that cancels the waiting task, and the cancellation is turned into
        E1801 here, as `asyncio.timeout` does it."""
        if self._aborted:
            work.close()
            raise _gone(self._peer)
        task = asyncio.current_task()
        assert task is not None
        self._blocked.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if self._aborted and task not in self._blocked and task.uncancel() <= 0:
                raise _gone(self._peer) from None
            raise
        except iroh.IrohError as error:
            raise _gone(self._peer, error) from None
        finally:
            self._blocked.discard(task)

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        while self._blocked:
            self._blocked.pop().cancel()
        # In the next round, when the cancelled tasks have let go of the stream's halves.
        asyncio.get_running_loop().call_soon(self._reset)

    def _reset(self) -> None:
        """Tell the peer. These two calls are done when they have been polled once, so nobody needs to wait."""
        calls = [self._receiver.stop(_RESET)]
        if not self._finished:  # else everything sent still arrives
            calls.append(self._sender.reset(_RESET))
        for call in calls:
            try:
                call.send(None)  # pyright: ignore[reportUnknownMemberType]
            except (StopIteration, iroh.IrohError):
                continue
            finally:
                call.close()


class IrohConnection:
    """`ports.Connection` over one QUIC connection, of which `unread_bytes` are taken in before they are read. `origin`
    is the IP address from which it was dialled, "" for one that we dialled or that came by a relay."""

    def __init__(self, connection: iroh.Connection, unread_bytes: int, origin: str) -> None:
        self._connection, self.unread_bytes, self.origin = connection, unread_bytes, origin
        self._peer = NodeId(connection.remote_id().to_bytes())
        self._received = -1
        self._silent = 0
        connection.set_max_concurrent_bi_streams(MAX_STREAMS)
        connection.set_max_concurrent_uni_streams(0)
        connection.set_receive_window(unread_bytes)

    @property
    def peer(self) -> NodeId:
        return self._peer

    async def open(self) -> IrohStream:
        try:
            return IrohStream(await self._connection.open_bi(), self._peer)
        except iroh.IrohError as error:
            raise _gone(self._peer, error) from None

    async def accepted(self) -> AsyncIterator[IrohStream]:
        while True:
            try:
                stream = await self._connection.accept_bi()
            except iroh.IrohError:
                return
            yield IrohStream(stream, self._peer)

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """`close`, which has nothing to wait for."""
        self._connection.close(0, b"")

    def alive(self) -> bool:
        """Called once a tick: look for signs of life and ask for one if there are none."""
        if self._connection.close_reason() is not None:
            return False
        received = self._connection.stats().udp_rx_datagrams
        if received != self._received:
            self._received, self._silent = received, 0
            return True
        self._silent += 1
        try:
            self._connection.send_datagram(b"")
        except iroh.IrohError:
            return False
        return self._silent <= SILENT_TICKS


class IrohTransport:
    """`ports.Transport` over an iroh endpoint. Made by `bind`, ended by `close`; both in the same event loop."""

    def __init__(self, endpoint: iroh.Endpoint, life: AsyncExitStack, tasks: asyncio.TaskGroup, relay: str) -> None:
        self._endpoint, self._life, self._tasks, self._relay = endpoint, life, tasks, relay
        self._node = NodeId(endpoint.id().to_bytes())
        self._arrived: asyncio.Queue[IrohConnection | None] = asyncio.Queue(MAX_WAITING + 1)
        self._connections: set[IrohConnection] = set()
        self._handshakes = 0
        self._closed = False
        self._background = [tasks.create_task(self._accept()), tasks.create_task(self._watch())]

    @classmethod
    async def bind(cls, seed: bytes, bind: str = "127.0.0.1:0", relay: str = "") -> IrohTransport:
        """Listen as the node whose Ed25519 seed is `seed` (32 bytes) on `bind` ("ip:port", port 0 for any). `relay` is
        the URL of a relay, or "" for none: then only nodes that can reach `bind` can dial us. Raises UnavailableError
        E1804 when the port is taken, UsageError E1805 when `bind` or `relay` cannot be used."""
        iroh_memmove.repair()
        iroh_polling.repair()
        uniffi_set_event_loop(asyncio.get_running_loop())  # pyright: ignore[reportArgumentType]
        try:
            mode = iroh.RelayMode.custom_from_urls([relay]) if relay else iroh.RelayMode.disabled()
            options = iroh.EndpointOptions(bind_addr=bind, secret_key=seed, alpns=[ALPN], relay_mode=mode)
            endpoint = await iroh.Endpoint.bind(options)
        except iroh.IrohError as error:
            raise _bind_error(error, bind, relay) from None
        life = AsyncExitStack()
        iroh_garbage.hold()
        life.callback(iroh_garbage.let_go)
        # The tasks never fail, so the group only keeps them; it ends in `close`.
        tasks = await life.enter_async_context(asyncio.TaskGroup())
        return cls(endpoint, life, tasks, relay)

    @property
    def node(self) -> NodeId:
        return self._node

    def address(self) -> NodeAddress:
        """Where others can dial us, as far as known now: addresses of this machine's interfaces, and the relay."""
        here = self._endpoint.addr()
        direct = [found for found in here.direct_addresses() if len(found) <= 200][:15]
        if not direct:  # no network at all: other processes of this machine can still come
            direct = [f"127.0.0.1:{port.rsplit(':', 1)[1]}" for port in self._endpoint.bound_sockets()[:1]]
        return NodeAddress(node=self._node, direct=tuple(direct), relay=here.relay_url() or self._relay)

    async def connect(self, address: NodeAddress, timeout_s: float) -> IrohConnection:
        who = f"Node {address.node.hex()[:12]}"
        # Attack: an address whose "relay" has us open HTTP connections to whatever host its author likes.
        relay = self._relay if self._relay and address.relay.rstrip("/") == self._relay.rstrip("/") else None
        try:
            there = iroh.EndpointAddr(iroh.EndpointId.from_bytes(address.node), relay, list(address.direct))
            async with asyncio.timeout(timeout_s):
                connection = await self._endpoint.connect(there, ALPN)
        except TimeoutError:
            raise fail("E1801", f"{who} did not answer within {timeout_s:g} s.") from None
        except iroh.IrohError as error:
            raise fail("E1801", f"{who} cannot be reached: {error.message().splitlines()[-1].strip()[:200]}.") from None
        return self._keep(connection)

    async def accepted(self) -> AsyncIterator[IrohConnection]:
        while not self._closed and (connection := await self._arrived.get()) is not None:
            yield connection

    async def close(self) -> None:
        """Close every connection and stop listening, within `CLOSE_S`. Streams' last bytes may be lost: finish calls
        first. The port is free afterwards, unless a dial was given up seconds ago: then it is when the process ends."""
        if self._closed:
            return
        self._closed = True
        for connection in list(self._connections):
            connection.drop()
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)
        for task in self._background:
            task.cancel()
        with suppress(TimeoutError):  # it waits 3 s for dials that were given up, and there is nothing to gain by that
            async with asyncio.timeout(CLOSE_S):
                await self._endpoint.close()
        await self._life.aclose()

    def _keep(self, connection: iroh.Connection, origin: str = "") -> IrohConnection:
        left = UNREAD_BYTES - sum(found.unread_bytes for found in self._connections)
        kept = IrohConnection(connection, max(left // UNREAD_PART, LEAST_UNREAD_BYTES), origin)
        self._connections.add(kept)
        return kept

    async def _accept(self) -> None:
        while (incoming := await self._endpoint.accept_next()) is not None:
            if self._handshakes >= MAX_HANDSHAKES or self._handshakes + self._arrived.qsize() >= MAX_WAITING:
                await _quietly(incoming.refuse())  # a flood of dials must not grow without bound
                continue
            self._handshakes += 1
            self._tasks.create_task(self._shake_hands(incoming))

    async def _shake_hands(self, incoming: iroh.Incoming) -> None:
        """In a task of its own, so that a peer that stalls here holds up nobody else."""
        try:
            origin = await _origin(incoming)
            if origin and sum(found.origin == origin for found in self._connections) >= MAX_FROM_ADDRESS:
                await incoming.refuse()
                return
            async with asyncio.timeout(HANDSHAKE_S):
                connection = await (await incoming.accept()).connect()
        except (iroh.IrohError, TimeoutError):
            return
        finally:
            self._handshakes -= 1
        if not self._closed:
            self._arrived.put_nowait(self._keep(connection, origin))  # room was counted in `_accept`

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            iroh_garbage.sweep()
            for connection in [found for found in self._connections if not found.alive()]:
                self._connections.discard(connection)
                connection.drop()


async def _origin(incoming: iroh.Incoming) -> str:
    """The IP address that somebody dials from; "" by a relay."""
    where = await incoming.remote_addr()
    return where.addr.rpartition(":")[0] if isinstance(where, iroh.IncomingAddr.IP) else ""


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except iroh.IrohError:
        return


def _bind_error(error: iroh.IrohError, bind: str, relay: str) -> FallowError:
    text = error.message()
    if error.is_kind(iroh.IrohErrorKind.BIND) and "in use" in text:
        return fail("E1804", f"Another program listens on {bind} already.")
    if relay and not error.is_kind(iroh.IrohErrorKind.BIND) and "socket address" not in text:
        return fail("E1805", f"{relay} is not the address of a relay.")
    return fail("E1805", f"This machine cannot listen on {bind}.")
