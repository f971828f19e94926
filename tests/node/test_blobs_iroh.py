"""Blobs over real connections between real stores, and between processes that get killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.node.blob_nodes import blob_of, honest, stuff
from tests.node.blob_process import from_text

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.iroh_transport import IrohTransport
from fallow.errors import FallowError, PeerFault
from fallow.node.blobs import Fetcher, serve_blobs
from fallow.node.download import FetchLimits
from fallow.node.rpc import Caller, Router, Rpc, serve
from fallow.units import GIB, MIB, BlobId
from fallow.wire.blob_id import CHUNK_BYTES, chunk_hashes_of
from fallow.wire.messages import BlobFound, BlobStat, FetchBlob, Message, NodeAddress

DATA = stuff(24 * MIB + 5)
BLOB = blob_of(DATA)
PROCESS = Path(__file__).with_name("blob_process.py")


class Endpoints:
    """Real endpoints in this process."""

    def __init__(self, root: Path, life: AsyncExitStack, tasks: asyncio.TaskGroup) -> None:
        self._root, self._life, self._tasks = root, life, tasks
        self._count = 0

    async def transport(self) -> IrohTransport:
        self._count += 1
        made = await IrohTransport.bind(bytes([self._count]) * 32)
        self._life.push_async_callback(made.close)
        return made

    def store(self) -> DiskBlobs:
        made = DiskBlobs(self._root / f"store{self._count}", GIB)
        self._life.callback(made.close)
        return made

    async def source(self, data: bytes) -> NodeAddress:
        transport, store, router = await self.transport(), self.store(), Router()
        store.put(data)
        serve_blobs(router, store)
        self._tasks.create_task(serve(transport, router))
        return transport.address()

    async def liar(self) -> NodeAddress:
        transport, router = await self.transport(), Router()
        wrong = DATA[:-1] + b"?"

        @router.on(BlobStat)
        async def stat(caller: Caller, request: BlobStat) -> Message:
            return BlobFound(len(DATA), chunk_hashes_of(DATA))

        @router.stream(FetchBlob)
        async def send(
            caller: Caller, request: FetchBlob, inputs: AsyncIterator[Message]
        ) -> AsyncIterator[Message | bytes]:
            async for item in honest(wrong[1:] + wrong[:1])(request):
                yield item

        self._tasks.create_task(serve(transport, router))
        return transport.address()

    async def rpc(self) -> Rpc:
        return await self._life.enter_async_context(Rpc(await self.transport()))


@asynccontextmanager
async def endpoints(root: Path) -> AsyncGenerator[Endpoints]:
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as life:
        yield Endpoints(root, life, tasks)


async def test_four_endpoints_one_of_which_lies(tmp_path: Path) -> None:
    async with endpoints(tmp_path) as world:
        sources = [await world.liar(), await world.source(DATA), await world.source(DATA)]
        rpc, store = await world.rpc(), world.store()
        faults: list[tuple[bytes, FallowError]] = []
        fetcher = Fetcher(rpc, store, lambda node, error: faults.append((node, error)))
        assert await fetcher.fetch(BLOB, sources, len(DATA), owner="job") == len(DATA)
        assert store.path(BLOB).read_bytes() == DATA
        assert {node for node, _ in faults} == {sources[0].node}
        assert all(isinstance(error, PeerFault) for _, error in faults)


async def test_many_fetches_at_once(tmp_path: Path) -> None:
    pieces = [stuff(MIB + n, n) for n in range(20)]
    async with endpoints(tmp_path) as world:
        sources = [await world.source(b"".join(pieces))]
        transport, store, router = await world.transport(), world.store(), Router()
        for piece in pieces:
            store.put(piece)
        serve_blobs(router, store)
        world._tasks.create_task(serve(transport, router))
        fetcher = Fetcher(await world.rpc(), world.store(), limits=FetchLimits(memory_bytes=64 * MIB))
        async with asyncio.TaskGroup() as group:
            for piece in pieces:
                group.create_task(fetcher.fetch(blob_of(piece), [*sources, transport.address()]))


# processes ------------------------------------------------------------------------------------------------------------


class Processes:
    def __init__(self, root: Path, life: ExitStack) -> None:
        self._root, self._life = root, life
        self._count = 0
        self.file = root / "file"
        self.file.write_bytes(DATA)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROCESS), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._life.callback(process.communicate)
        self._life.callback(process.kill)
        return process

    def source(self) -> tuple[subprocess.Popen[str], NodeAddress, str]:
        self._count += 1
        process = self.start("serve", self._root / f"source{self._count}", self._count, self.file)
        assert process.stdout is not None
        text, blob = process.stdout.readline().split()
        assert BlobId(bytes.fromhex(blob)) == BLOB
        return process, from_text(text), text


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as life:
        yield Processes(tmp_path, life)


async def test_kill_9_of_a_source_in_the_middle_of_a_transfer(tmp_path: Path, processes: Processes) -> None:
    (first, one, _), (_, two, _) = processes.source(), processes.source()
    async with endpoints(tmp_path) as world:
        rpc, store = await world.rpc(), world.store()
        killed_at: list[int] = []

        def kill(here: int, size: int) -> None:
            if not killed_at and here > 5 * CHUNK_BYTES:
                first.kill()
                killed_at.append(here)

        fetcher = Fetcher(rpc, store, limits=FetchLimits(hedge_s=0.2))
        await fetcher.fetch(BLOB, [one, two], on_progress=kill)
        assert killed_at
        assert killed_at[0] < len(DATA)
        assert store.path(BLOB).read_bytes() == DATA


def test_kill_9_of_the_fetching_process_keeps_what_came(tmp_path: Path, processes: Processes) -> None:
    _, _, address = processes.source()
    command = ("fetch", tmp_path / "target", 99, BLOB.hex(), address)
    fetching, here = processes.start(*command), 0
    assert fetching.stdout is not None
    for line in fetching.stdout:
        here = int(line)
        if here > 8 * CHUNK_BYTES:
            fetching.kill()
            break
    fetching.wait()
    again = processes.start(*command)
    told = again.communicate(timeout=60)[0].split()
    assert told[-1] == "done"
    assert int(told[0]) > here, "what was told before the kill had been written"
    store = DiskBlobs(tmp_path / "target", GIB)
    assert store.path(BLOB).read_bytes() == DATA
    store.close()
