"""Fetching together, trees, and what is served to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from tests.node.blob_nodes import blob_of, honest, net, stuff

from fallow.errors import FallowError, PeerFault, RejectedError, UnavailableError
from fallow.node.blobs import serve_blobs
from fallow.node.download import FetchLimits
from fallow.node.rpc import Router
from fallow.sim.disk import SimBlobs
from fallow.units import MIB, BlobId
from fallow.wire.blob_id import CHUNK_BYTES
from fallow.wire.messages import FetchBlob, Message
from fallow.wire.trees import TreeEntry, encode_tree


async def stalling(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    yield DATA[request.offset : request.offset + CHUNK_BYTES // 2]
    await asyncio.Event().wait()


DATA = stuff(9 * CHUNK_BYTES + 12345)
BLOB = blob_of(DATA)


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES])
@pytest.mark.parametrize("sources", [1, 3])
async def test_a_blob_arrives(size_bytes: int, sources: int) -> None:
    data = stuff(size_bytes, 1)
    async with net() as world:
        addresses = [world.source(data) for _ in range(sources)]
        assert await world.fetcher.fetch(blob_of(data), addresses, size_bytes) == size_bytes
        assert world.blobs.read(blob_of(data), 0, size_bytes) == data
        assert world.faults == []


async def test_what_is_here_is_not_fetched_and_progress_is_told() -> None:
    async with net() as world:
        told: list[tuple[int, int]] = []
        address = world.source(DATA)
        await world.fetcher.fetch(BLOB, [address], on_progress=lambda here, size: told.append((here, size)))
        assert told[-1] == (len(DATA), len(DATA))
        assert [here for here, _ in told] == sorted(here for here, _ in told)
        world.crash(address)
        assert await world.fetcher.fetch(BLOB, []) == len(DATA)


async def test_the_owner_pins_what_it_fetched() -> None:
    async with net(quota_bytes=12 * MIB) as world:
        await world.fetcher.fetch(BLOB, [world.source(DATA)], owner="job")
        with pytest.raises(UnavailableError):
            world.blobs.put(stuff(5 * MIB, 3))
        world.blobs.unpin_all("job")
        world.blobs.put(stuff(5 * MIB, 3))


# together -------------------------------------------------------------------------------------------------------------


async def test_calls_for_one_blob_share_one_download() -> None:
    async with net() as world:
        address = world.cheat(DATA, honest(DATA))
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(world.fetcher.fetch(BLOB, [address])) for _ in range(10)]
        assert [call.result() for call in calls] == [len(DATA)] * 10
        assert sum(request.length_bytes for _, request in world.asked) == len(DATA)


async def test_a_waiting_call_goes_on_with_its_own_sources_when_the_first_fails() -> None:
    async with net() as world:
        first, second = await asyncio.gather(
            world.fetcher.fetch(BLOB, [world.cheat(DATA, stalling)], timeout_s=0.1),
            world.fetcher.fetch(BLOB, [world.source(DATA)]),
            return_exceptions=True,
        )
        assert isinstance(first, UnavailableError)
        assert second == len(DATA)


async def test_time_runs_out() -> None:
    async with net(FetchLimits()) as world:
        with pytest.raises(UnavailableError) as caught:
            await world.fetcher.fetch(BLOB, [world.cheat(DATA, stalling)], timeout_s=0.05)
        assert caught.value.code == "E1602"
        await world.fetcher.fetch(BLOB, [world.source(DATA)])  # nothing is left locked


# trees ----------------------------------------------------------------------------------------------------------------


def tree_of(files: dict[str, bytes], lie: int = 0) -> bytes:
    return encode_tree(TreeEntry(name, blob_of(data), len(data) + lie) for name, data in files.items())


FILES = {f"part/{n}": stuff(n * 100_000, n) for n in range(12)} | {"copy": stuff(100_000, 1)}


async def test_a_tree_arrives_with_all_its_files() -> None:
    tree = tree_of(FILES)
    async with net() as world:
        sources = [world.source(tree, *FILES.values()), world.source(*FILES.values())]
        size = sum(map(len, FILES.values()))
        assert await world.fetcher.fetch_tree(blob_of(tree), sources, size, owner="job") == size
        for data in FILES.values():
            assert world.blobs.read(blob_of(data), 0, len(data)) == data
        with pytest.raises(RejectedError):
            await world.fetcher.fetch_tree(blob_of(tree), sources, size - 1)


async def test_trees_that_lie_or_miss_something_fail() -> None:
    async with net() as world:
        everything = world.source(
            tree_of(FILES), tree_of(FILES, 1), tree_of({"a": stuff(5)}), b"no tree", *FILES.values()
        )
        cases: list[tuple[bytes, type[FallowError], str]] = [
            (tree_of(FILES, 1), PeerFault, "E1601"),
            (b"no tree", PeerFault, "E1102"),
            (tree_of({"a": stuff(5)}), UnavailableError, "E1602"),
        ]
        for tree, family, code in cases:
            with pytest.raises(family) as caught:
                await world.fetcher.fetch_tree(blob_of(tree), [everything])
            assert caught.value.code == code


# serving --------------------------------------------------------------------------------------------------------------


async def read_all(world_rpc: object, address: object, request: FetchBlob) -> bytes:
    from fallow.node.rpc import Rpc
    from fallow.wire.messages import NodeAddress

    assert isinstance(world_rpc, Rpc)
    assert isinstance(address, NodeAddress)
    async with world_rpc.open(address, request) as stream:
        await stream.finish()
        return b"".join([item async for item in stream if isinstance(item, bytes)])


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 10), (CHUNK_BYTES - 1, 2), (5, 3 * CHUNK_BYTES), (len(DATA), 5), (1 << 60, 1)]
)
async def test_any_range_is_served(offset: int, length: int) -> None:
    async with net() as world:
        got = await read_all(world.rpc, world.source(DATA), FetchBlob(BLOB, offset, length))
        assert got == DATA[offset : offset + length]


async def test_a_damaged_blob_is_not_served_and_its_node_is_no_liar() -> None:
    async with net() as world:
        store = world.life.enter_context(closing(SimBlobs(256 * MIB)))
        store.put(DATA)
        file = store.path(BLOB)
        file.chmod(0o600)
        file.write_bytes(DATA[: 4 * CHUNK_BYTES] + b"?" + DATA[4 * CHUNK_BYTES + 1 :])
        router = Router()
        serve_blobs(router, store)
        address = world.listen(router)
        await world.fetcher.fetch(BLOB, [address, world.source(DATA)])
        assert not any(isinstance(error, PeerFault) for _, error in world.faults)


async def test_what_nobody_has_is_a_coded_error() -> None:
    async with net() as world:
        with pytest.raises(UnavailableError) as caught:
            await read_all(world.rpc, world.source(), FetchBlob(BlobId(bytes(32)), 0, 1))
        assert caught.value.code == "E1602"


async def test_one_node_cannot_take_all_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.node.blobs.MAX_SERVED_PER_NODE", 2)
    async with net() as world:
        address = world.source(DATA)
        request = FetchBlob(BLOB, 0, len(DATA))
        async with world.rpc.open(address, request) as one, world.rpc.open(address, request) as two:
            assert await anext(one) and await anext(two)
            with pytest.raises(UnavailableError) as caught:
                await read_all(world.rpc, address, request)
            assert caught.value.code == "E1803"
        while True:  # the places come back once the server has seen that we left
            try:
                assert await read_all(world.rpc, address, request) == DATA
                break
            except UnavailableError:
                await asyncio.sleep(0)
