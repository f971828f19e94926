"""Nodes that have blobs, honest and otherwise, on a network in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field

from fallow.errors import FallowError
from fallow.node.blobs import Fetcher, serve_blobs
from fallow.node.download import FetchLimits
from fallow.node.rpc import Caller, Router, Rpc, serve
from fallow.sim.disk import SimBlobs
from fallow.sim.transport import SimNetwork, SimTransport
from fallow.units import MIB, BlobId, NodeId
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of
from fallow.wire.messages import BlobFound, BlobStat, FetchBlob, Message, NodeAddress

QUICK = FetchLimits(stat_s=1.5, stall_s=1.5, hedge_s=0.05)
"""Limits for sources that answer within microseconds unless a test makes them stall, or the machine pauses."""

Answer = Callable[[FetchBlob], AsyncIterator[Message | bytes]]


@dataclass
class Net:
    """A network of sources around one node that fetches."""

    network: SimNetwork
    rpc: Rpc
    blobs: SimBlobs
    fetcher: Fetcher
    tasks: asyncio.TaskGroup
    life: AsyncExitStack
    faults: list[tuple[NodeId, FallowError]] = field(default_factory=list)
    asked: list[tuple[NodeId, FetchBlob]] = field(default_factory=list)
    transports: dict[NodeId, SimTransport] = field(default_factory=dict)

    def source(self, *contents: bytes) -> NodeAddress:
        """An honest node that has `contents`."""
        store = self.life.enter_context(closing(SimBlobs(1 << 40)))
        for data in contents:
            store.put(data)
        router = Router()
        serve_blobs(router, store)
        return self.listen(router)

    def cheat(self, data: bytes, answer: Answer, found: BlobFound | None = None) -> NodeAddress:
        """A node that says it has `data` (or `found`) and gives `answer` when asked for bytes of it."""
        router = Router()
        said = found or BlobFound(len(data), chunk_hashes_of(data))

        @router.on(BlobStat)
        async def stat(caller: Caller, request: BlobStat) -> Message:
            return said

        address: list[NodeAddress] = []

        @router.stream(FetchBlob)
        async def send(
            caller: Caller, request: FetchBlob, inputs: AsyncIterator[Message]
        ) -> AsyncIterator[Message | bytes]:
            self.asked.append((NodeId(address[0].node), request))
            async for item in answer(request):
                yield item

        address.append(self.listen(router))
        return address[0]

    def listen(self, router: Router) -> NodeAddress:
        node = NodeId(len(self.transports).to_bytes(32, "big"))
        transport = self.transports[node] = self.network.listen(node)
        self.tasks.create_task(serve(transport, router))
        return transport.address()

    def crash(self, address: NodeAddress) -> None:
        self.network.crash(self.transports[NodeId(address.node)])

    def dropped(self) -> dict[NodeId, str]:
        """Who was reported, and for what."""
        return {node: error.code for node, error in self.faults}


@asynccontextmanager
async def net(limits: FetchLimits = QUICK, quota_bytes: int = 256 * MIB, delay_s: float = 0.0) -> AsyncGenerator[Net]:
    network = SimNetwork(delay_s=delay_s)
    transport = network.listen(NodeId(b"\xff" * 32))
    async with AsyncExitStack() as life:
        tasks = await life.enter_async_context(asyncio.TaskGroup())
        rpc = await life.enter_async_context(Rpc(transport))
        blobs = life.enter_context(closing(SimBlobs(quota_bytes)))
        faults: list[tuple[NodeId, FallowError]] = []
        fetcher = Fetcher(rpc, blobs, lambda node, error: faults.append((node, error)), limits)
        made = Net(network, rpc, blobs, fetcher, tasks, life, faults)
        yield made
        for listening in made.transports.values():
            network.crash(listening)


def honest(data: bytes) -> Answer:
    """What a good source sends."""

    async def answer(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        for at in range(request.offset, request.offset + request.length_bytes, CHUNK_BYTES):
            yield data[at : min(at + CHUNK_BYTES, request.offset + request.length_bytes)]

    return answer


def blob_of(data: bytes) -> BlobId:
    return blob_id_of(data)


def stuff(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that look random and are the same every time."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size_bytes)
