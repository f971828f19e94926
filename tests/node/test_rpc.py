"""Calls between nodes, over the simulator's transport and, where the wire matters, over iroh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import blake3
import pytest

from fallow.adapters.iroh_transport import IrohTransport
from fallow.errors import FallowError, PeerFault, RejectedError, UnavailableError, fail
from fallow.node import rpc as rpc_module
from fallow.node.rpc import Caller, Limits, Router, Rpc, serve
from fallow.ports import Transport
from fallow.sim.transport import SimNetwork, SimTransport
from fallow.units import NodeId
from fallow.wire.frames import MAX_FRAME_BYTES
from fallow.wire.messages import (
    CancelTask,
    CloseLease,
    LaneResult,
    LaneTask,
    LogLine,
    Message,
    NodeAddress,
    Ok,
    OpenLane,
    WatchLease,
)

WORD = bytes(range(32))


class Handlers:
    """A node that answers: CancelTask by what its first byte says, WatchLease with a stream, OpenLane with an echo."""

    def __init__(self) -> None:
        self.router = Router()
        self.calls = 0
        self.running = 0
        self.callers: list[bytes] = []
        self.release = asyncio.Event()
        self.yielded = 0
        self.router.on(CancelTask)(self.cancel_task)
        self.router.stream(WatchLease)(self.watch)
        self.router.stream(OpenLane)(self.lane)

    async def cancel_task(self, caller: Caller, request: CancelTask) -> Message:
        self.calls += 1
        self.callers.append(caller.node)
        self.running += 1
        try:
            match request.lease[0]:
                case 1:
                    raise fail("E1301", "No money in /home/me/wallet.", money="All of it is elsewhere.")
                case 2:
                    raise RuntimeError("secret detail")
                case 3:
                    await self.release.wait()
                case 4:
                    return LogLine(WORD, "x" * MAX_FRAME_BYTES)
                case 5:
                    raise TimeoutError
                case 6:
                    raise fail("E1801", "The bank is away.")
                case _:
                    pass
        finally:
            self.running -= 1
        return Ok()

    async def watch(
        self, caller: Caller, request: WatchLease, inputs: AsyncIterator[Message]
    ) -> AsyncIterator[Message | bytes]:
        self.calls += 1
        self.running += 1
        try:
            for number in range(request.after_sequence):
                self.yielded += 1
                yield LaneResult(number, b"v" * 1000, 1) if number % 2 else b"raw" * 300
            if request.lease[0] == 1:
                raise fail("E1302", "closed")
            if request.lease[0] == 2:
                raise RuntimeError("secret detail")
            if request.lease[0] == 3:
                await self.release.wait()
        finally:
            self.running -= 1

    async def lane(self, caller: Caller, request: OpenLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        self.running += 1
        try:
            async for task in inputs:
                assert isinstance(task, LaneTask)
                if request.window == 1:
                    await self.release.wait()
                yield LaneResult(task.number, task.params, 1)
        finally:
            self.running -= 1


def ask(kind: int = 0) -> CancelTask:
    return CancelTask(bytes([kind]) * 32, WORD)


def lane(window: int = 10) -> OpenLane:
    return OpenLane(WORD, window)


class World:
    """Nodes on one network; `node` starts one that serves `handlers`, `client` one that calls."""

    def __init__(self, kind: str, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.kind, self.stack, self.group = kind, stack, group
        self.network = SimNetwork()
        self.tasks: dict[Transport, asyncio.Task[None]] = {}

    async def transport(self, number: int) -> Transport:
        seed = blake3.blake3(b"rpc %d" % number).digest()
        made = self.network.listen(NodeId(seed)) if self.kind == "sim" else await IrohTransport.bind(seed)
        self.stack.push_async_callback(made.close)
        return made

    async def node(
        self, number: int, router: Router, rpc: Rpc | None = None, limits: Limits | None = None
    ) -> Transport:
        transport = await self.transport(number)
        self.tasks[transport] = self.group.create_task(serve(transport, router, rpc, limits))
        return transport

    async def client(self, number: int, router: Router | None = None) -> Rpc:
        return await self.stack.enter_async_context(Rpc(await self.transport(number), router))

    async def stop(self, transport: Transport) -> None:
        await transport.close()
        await self.tasks.pop(transport)


@pytest.fixture(params=["sim", "iroh"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        made = World(request.param, stack, group)
        yield made
        for task in made.tasks.values():
            task.cancel()


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def error_of(work: Awaitable[object]) -> FallowError:
    with pytest.raises(FallowError) as caught:
        await work
    return caught.value


# unary ----------------------------------------------------------------------------------------------------------------


async def test_a_call_is_answered_and_the_handler_knows_who_asks(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    assert await client.call(server.address(), ask()) == Ok()
    assert handlers.callers == [client.node]
    assert client.address().node == client.node


async def test_many_calls_at_once_share_one_connection(
    world: World, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    dials = 0
    connect = client._transport.connect

    async def counted(address: NodeAddress, timeout_s: float) -> object:
        nonlocal dials
        dials += 1
        return await connect(address, timeout_s)

    monkeypatch.setattr(client._transport, "connect", counted)
    answers = await asyncio.gather(*(client.call(server.address(), ask()) for _ in range(100)))
    assert answers == [Ok()] * 100
    assert dials == 1


async def test_more_calls_than_a_peer_may_ever_have_open_work_one_after_another(handlers: Handlers) -> None:
    """Streams are given back: this fails when a finished call keeps its stream."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        server, client = await world.node(1, handlers.router), await world.client(2)
        async with asyncio.timeout(20):
            for _ in range(1200):
                await client.call(server.address(), ask())
        await client.close()
        await world.stop(server)


async def test_a_rejection_comes_over_as_it_is_but_without_paths(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    error = await error_of(client.call(server.address(), ask(1)))
    assert isinstance(error, RejectedError)
    assert (error.code, error.what, error.money) == ("E1301", "No money in (a path)", "All of it is elsewhere.")


@pytest.mark.parametrize("kind", [2, 4, 5])
async def test_a_bug_in_a_handler_is_not_explained_to_strangers(world: World, handlers: Handlers, kind: int) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    error = await error_of(client.call(server.address(), ask(kind)))
    assert isinstance(error, PeerFault)
    assert error.code == "E1806"
    assert "secret" not in error.five_lines()
    assert await client.call(server.address(), ask()) == Ok()


async def test_a_deadline_reaches_the_handler(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    await client.call(server.address(), ask())
    error = await error_of(client.call(server.address(), ask(3), 0.1))
    assert error.code == "E1802"
    await until(lambda: handlers.running == 0)
    assert handlers.calls == 2  # a slow call is not sent again


async def test_an_answer_with_the_code_of_a_broken_connection_is_no_broken_connection(
    world: World, handlers: Handlers
) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    await client.call(server.address(), ask())
    error = await error_of(client.call(server.address(), ask(6)))
    assert (error.code, error.what) == ("E1801", "The bank is away.")
    assert handlers.calls == 2


async def test_nobody_there_is_unavailable_within_the_time(world: World) -> None:
    client, nobody = await world.client(1), await world.transport(2)
    address = nobody.address()
    await nobody.close()
    async with asyncio.timeout(3):
        error = await error_of(client.call(address, ask(), 0.3))
    assert isinstance(error, UnavailableError)
    assert error.code in ("E1801", "E1802")


async def test_an_unknown_request_is_told_so(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    assert (await error_of(client.call(server.address(), CloseLease(WORD)))).code == "E1102"


async def test_a_peer_has_only_so_many_calls_open(world: World, handlers: Handlers) -> None:
    server = await world.node(1, handlers.router, limits=Limits(calls_per_peer=2))
    client, other = await world.client(2), await world.client(3)
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(client.call(server.address(), ask(3))) for _ in range(2)]
        await until(lambda: handlers.running == 2)
        assert (await error_of(client.call(server.address(), ask()))).code == "E1803"
        assert await other.call(server.address(), ask()) == Ok()  # others do not suffer
        handlers.release.set()
    assert [task.result() for task in held] == [Ok(), Ok()]
    assert await client.call(server.address(), ask()) == Ok()


async def test_a_peer_that_restarted_elsewhere_is_found_by_its_new_address(world: World, handlers: Handlers) -> None:
    before, client = await world.node(1, handlers.router), await world.client(2)
    assert await client.call(before.address(), ask()) == Ok()
    await world.stop(before)
    after = await world.node(1, handlers.router)
    async with asyncio.timeout(3):
        assert await client.call(after.address(), ask()) == Ok()
    assert await client.call(after.address(), ask()) == Ok()


async def test_a_dead_cached_connection_is_replaced_without_anybody_noticing(handlers: Handlers) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        server, client = await world.node(1, handlers.router), await world.client(2)
        assert isinstance(server, SimTransport)
        await client.call(server.address(), ask())
        waiting = group.create_task(client.call(server.address(), ask(3)))
        await until(lambda: handlers.running == 1)
        for connection in server.connections:
            connection.drop()
        await until(lambda: handlers.calls == 3)
        handlers.release.set()
        assert await waiting == Ok()
        await client.close()
        await world.stop(server)


async def test_a_call_that_breaks_twice_is_given_up(handlers: Handlers) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        server, client = await world.node(1, handlers.router), await world.client(2)
        assert isinstance(server, SimTransport)
        await client.call(server.address(), ask())
        waiting = group.create_task(error_of(client.call(server.address(), ask(3))))
        for calls in (2, 3):
            await until(lambda calls=calls: handlers.calls == calls)
            for connection in server.connections:
                connection.drop()
        assert (await waiting).code == "E1801"
        assert handlers.calls == 3
        await until(lambda: handlers.running == 0)
        await client.close()
        await world.stop(server)


async def test_a_partition_heals(handlers: Handlers) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        server, client = await world.node(1, handlers.router), await world.client(2)
        await client.call(server.address(), ask())
        world.network.cut(server.node, client.node)
        assert (await error_of(client.call(server.address(), ask(), 0.2))).retryable
        world.network.heal(server.node, client.node)
        assert await client.call(server.address(), ask()) == Ok()
        await client.close()
        await world.stop(server)


async def test_idle_connections_are_closed_and_busy_ones_kept(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_module, "SWEEP_S", 0.02)
    monkeypatch.setattr(rpc_module, "IDLE_S", 0.05)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        server, busy = await world.node(1, handlers.router), await world.node(3, handlers.router)
        client = await world.client(2)
        async with client.open(busy.address(), WatchLease(b"\3" * 32, 1)) as stream:
            assert await anext(aiter(stream)) == b"raw" * 300
            await client.call(server.address(), ask())
            await until(lambda: list(client._peers) == [busy.node])
            handlers.release.set()
            assert [item async for item in stream] == []
        await until(lambda: not client._peers)
        assert await client.call(server.address(), ask()) == Ok()
        await client.close()
        await world.stop(server)
        await world.stop(busy)


async def test_a_node_can_call_itself(world: World, handlers: Handlers) -> None:
    client = await world.client(1, handlers.router)
    assert await client.call(client.address(), ask()) == Ok()
    assert handlers.callers == [client.node]
    async with client.open(client.address(), lane()) as stream:
        await stream.send(LaneTask(1, b"p" * 1_000_000))
        assert await anext(aiter(stream)) == LaneResult(1, b"p" * 1_000_000, 1)
    await until(lambda: handlers.running == 0)
    assert (await error_of((await world.client(2)).call(client.address(), ask(), 0.3))).retryable  # not served


async def test_a_node_is_called_back_over_the_connection_that_it_dialled(world: World, handlers: Handlers) -> None:
    """As behind a NAT: nobody can dial the second node, yet the first one reaches it."""
    first = await world.client(1, Router())
    task = world.group.create_task(serve(first._transport, Router(), first))
    second = await world.client(2, handlers.router)
    await error_of(second.call(first.address(), ask()))  # any call makes the connection
    hidden = NodeAddress(node=second.node, direct=())
    assert await first.call(hidden, ask()) == Ok()
    assert handlers.callers == [first.node]
    task.cancel()


async def test_calling_back_leaves_the_calls_of_the_other_side_alone(world: World, handlers: Handlers) -> None:
    """A provider that fetches a blob from a steward must not end the steward's streams: it knows the steward by the
    connection that came in, and hears its address only now."""
    provider = await world.client(1, handlers.router)
    tasks = [world.group.create_task(serve(provider._transport, handlers.router, provider))]
    steward = await world.client(2, handlers.router)
    tasks.append(world.group.create_task(serve(steward._transport, handlers.router, steward)))
    async with steward.open(provider.address(), WatchLease(b"\3" * 32, 1)) as stream:
        assert await anext(aiter(stream)) == b"raw" * 300
        for port in (0, 7):  # then again, by an address that nobody has heard of
            more = (f"127.0.0.1:{port}",) if port else ()
            here = steward.address()
            assert await provider.call(NodeAddress(here.node, (*more, *here.direct)), ask()) == Ok()
        await until(lambda: not any(peer.users for peer in provider._peers.values()))
        await provider.call(steward.address(), ask())
        handlers.release.set()
        assert [item async for item in stream] == []
    for task in tasks:
        task.cancel()


async def test_a_replaced_connection_stays_until_nobody_is_served_on_it(
    world: World, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_module, "SWEEP_S", 0.02)
    provider = await world.client(1, handlers.router)
    task = world.group.create_task(serve(provider._transport, handlers.router, provider))
    steward = await world.client(2, handlers.router)
    other = world.group.create_task(serve(steward._transport, handlers.router, steward))
    async with steward.open(provider.address(), WatchLease(b"\3" * 32, 1)) as stream:
        assert await anext(aiter(stream)) == b"raw" * 300
        peer = provider._peers[steward.node]
        peer.places["127.0.0.1:9"] = None  # it lived elsewhere once, so that the next address is a move
        assert await provider.call(steward.address(), ask()) == Ok()
        assert len(peer.retired) == 1
        await provider.call(steward.address(), ask())
        handlers.release.set()
        assert [item async for item in stream] == []
    await until(lambda: not peer.retired)
    task.cancel()
    other.cancel()


async def test_one_broken_call_leaves_the_other_calls_on_its_connection_alone(handlers: Handlers) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        world = World("sim", stack, group)
        cut = Router()

        @cut.on(CancelTask)
        async def leave(caller: Caller, request: CancelTask) -> Message:
            raise asyncio.CancelledError  # the stream is aborted, the connection lives

        cut.stream(WatchLease)(handlers.watch)
        server, client = await world.node(1, cut), await world.client(2)
        async with client.open(server.address(), WatchLease(b"\3" * 32, 1)) as stream:
            assert await anext(aiter(stream)) == b"raw" * 300
            assert (await error_of(client.call(server.address(), ask()))).code == "E1801"
            handlers.release.set()
            assert [item async for item in stream] == []
        await client.close()
        await world.stop(server)


# streams --------------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_messages_and_raw_bytes_in_order(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    async with client.open(server.address(), WatchLease(WORD, 5000)) as stream:
        items = [item async for item in stream]
    assert items == [LaneResult(n, b"v" * 1000, 1) if n % 2 else b"raw" * 300 for n in range(5000)]
    assert [item async for item in stream] == []


async def test_a_stream_goes_both_ways(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    async with client.open(server.address(), lane()) as stream, asyncio.TaskGroup() as group:

        async def send() -> None:
            for number in range(3000):
                await stream.send(LaneTask(number, b"p"))
            await stream.finish()
            await stream.finish()

        group.create_task(send())
        assert [item.number async for item in stream if isinstance(item, LaneResult)] == list(range(3000))
    await until(lambda: handlers.running == 0)


@pytest.mark.parametrize(("kind", "code"), [(1, "E1302"), (2, "E1806")])
async def test_a_stream_that_fails_gives_its_items_first(
    world: World, handlers: Handlers, kind: int, code: str
) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    items: list[object] = []

    async def read() -> None:
        async with client.open(server.address(), WatchLease(bytes([kind]) * 32, 3)) as stream:
            async for item in stream:
                items.append(item)

    error = await error_of(read())
    assert error.code == code
    assert "secret" not in error.five_lines()
    assert len(items) == 3


async def test_leaving_a_stream_ends_its_handler(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    for finish in (False, True):
        async with client.open(server.address(), WatchLease(b"\3" * 32, 1)) as stream:
            if finish:
                await stream.finish()
            assert await anext(aiter(stream)) == b"raw" * 300
            assert handlers.running == 1
        await until(lambda: handlers.running == 0)


async def test_an_error_in_the_block_comes_out_as_it_is(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    with pytest.raises(ZeroDivisionError):
        async with client.open(server.address(), lane()):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with client.open(server.address(), lane()):
            raise TimeoutError


async def test_a_stream_may_have_a_deadline(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)

    async def read() -> None:
        async with client.open(server.address(), WatchLease(b"\3" * 32, 0), 0.1) as stream:
            async for _ in stream:
                pass

    assert (await error_of(read())).code == "E1802"
    await until(lambda: handlers.running == 0)


async def test_a_caller_that_does_not_read_stops_the_handler(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    async with client.open(server.address(), WatchLease(WORD, 100_000)):
        await until(lambda: handlers.yielded > 100)
        before = -1
        while before != handlers.yielded:
            before = handlers.yielded
            await asyncio.sleep(0.2)
        assert handlers.yielded < 20_000
    await until(lambda: handlers.running == 0)


async def test_a_handler_that_does_not_read_stops_the_caller(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    sent = 0
    async with client.open(server.address(), lane(1)) as stream, asyncio.TaskGroup() as group:

        async def pour() -> None:
            nonlocal sent
            while True:
                await stream.send(LaneTask(sent, b"p" * 10_000))
                sent += 1

        pouring = group.create_task(pour())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 2000
        pouring.cancel()
    handlers.release.set()  # with input unread, it learns that the caller left when it next yields
    await until(lambda: handlers.running == 0)


async def test_a_server_that_stops_ends_streams_with_an_error_and_at_once(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)

    async def read() -> None:
        async with client.open(server.address(), WatchLease(b"\3" * 32, 1)) as stream:
            async for _ in stream:
                pass

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(error_of(read()))
        await until(lambda: handlers.running == 1)
        async with asyncio.timeout(1):
            world.tasks[server].cancel()
            await asyncio.wait({world.tasks.pop(server)})
        assert handlers.running == 0
        async with asyncio.timeout(3):
            assert (await reading).code == "E1801"


async def test_closing_the_rpc_ends_what_is_open(world: World, handlers: Handlers) -> None:
    server, client = await world.node(1, handlers.router), await world.client(2)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(error_of(client.call(server.address(), ask(3)))) for _ in range(3)]
        await until(lambda: handlers.running == 3)
        async with asyncio.timeout(1):
            await client.close()
        assert {(await call).code for call in calls} == {"E1801"}
    assert (await error_of(client.call(server.address(), ask()))).code == "E1801"
