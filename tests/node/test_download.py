"""One download from several sources, most of which cheat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.blob_nodes import Answer, blob_of, honest, net, stuff

from fallow.errors import RejectedError, UnavailableError, fail
from fallow.node import download
from fallow.node.blobs import Fetcher
from fallow.node.download import STREAM_BYTES, FetchLimits
from fallow.sim.disk import SimBlobs
from fallow.units import MIB
from fallow.wire.blob_id import CHUNK_BYTES, chunk_hashes_of
from fallow.wire.messages import BlobFound, FetchBlob, Message, Ok

DATA = stuff(9 * CHUNK_BYTES + 12345)
BLOB = blob_of(DATA)


async def test_several_sources_share_the_work_and_little_comes_twice() -> None:
    data = stuff(64 * CHUNK_BYTES, 2)
    async with net(quota_bytes=1 << 30) as world:
        addresses = [world.cheat(data, honest(data)) for _ in range(4)]
        await world.fetcher.fetch(blob_of(data), addresses)
        assert {node for node, _ in world.asked} == {address.node for address in addresses}
        assert len(world.asked) < 40


async def test_one_source_is_asked_once_for_everything() -> None:
    async with net() as world:
        await world.fetcher.fetch(BLOB, [world.cheat(DATA, honest(DATA))])
        assert [request for _, request in world.asked] == [FetchBlob(BLOB, 0, len(DATA))]


@pytest.mark.parametrize(("fast_s", "streams"), [(10.0, 2), (0.0, 1)])
async def test_a_fast_source_is_asked_for_a_second_stream(
    monkeypatch: pytest.MonkeyPatch, fast_s: float, streams: int
) -> None:
    monkeypatch.setattr(download, "FAST_CHUNK_S", fast_s)
    data, open_now, most = stuff(32 * CHUNK_BYTES, 3), 0, 0

    async def counted(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            async for item in honest(data)(request):
                yield item
        finally:
            open_now -= 1

    async with net(FetchLimits()) as world:
        source = world.cheat(data, counted)
        await world.fetcher.fetch(blob_of(data), [source])
        assert world.blobs.read(blob_of(data), 0, len(data)) == data
        assert most == streams


async def test_a_source_that_refuses_a_second_stream_goes_on_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FAST_CHUNK_S", 10.0)
    data, asked = stuff(32 * CHUNK_BYTES, 3), list[FetchBlob]()

    async def busy(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        asked.append(request)
        if len(asked) == 2:
            raise fail("E1803", "one at a time")
        async for item in honest(data)(request):
            yield item

    async with net(FetchLimits()) as world:
        await world.fetcher.fetch(blob_of(data), [world.cheat(data, busy)])
        assert world.blobs.read(blob_of(data), 0, len(data)) == data
        assert world.faults == []


async def test_who_lies_on_its_second_stream_only_is_caught_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FAST_CHUNK_S", 10.0)
    data = stuff(32 * CHUNK_BYTES, 3)

    async def sly(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        async for item in honest(data if request.offset == 0 else bytes(len(data)))(request):
            yield item

    async with net(FetchLimits()) as world:
        liar, good = world.cheat(data, sly), world.source(data)
        with pytest.raises(UnavailableError):
            await world.fetcher.fetch(blob_of(data), [liar])
        assert [(node, error.code) for node, error in world.faults] == [(liar.node, "E1601")]
        await world.fetcher.fetch(blob_of(data), [good])
        assert world.blobs.read(blob_of(data), 0, len(data)) == data


# cheats ---------------------------------------------------------------------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def truncated(share: float) -> Answer:
    async def answer(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        async for item in honest(DATA)(FetchBlob(BLOB, request.offset, int(request.length_bytes * share))):
            yield item

    return answer


async def stalling(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    yield DATA[request.offset : request.offset + CHUNK_BYTES // 2]
    await asyncio.Event().wait()


async def dripping(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    for at in range(request.offset, request.offset + request.length_bytes):
        yield DATA[at : at + 1]
        await asyncio.sleep(0.01)


async def empty_forever(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    while True:
        yield b""
        await asyncio.sleep(0)


async def talking(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    yield Ok()


async def shifted(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    async for item in honest(DATA + b"?")(FetchBlob(BLOB, request.offset + 1, request.length_bytes)):
        yield item


async def refusing(request: FetchBlob) -> AsyncIterator[Message | bytes]:
    raise fail("E1603", "my disk is full, and so is yours")
    yield b""


CHEATS: dict[str, tuple[Answer, str]] = {
    "a wrong bit at the start": (honest(flipped(DATA, 0)), "E1601"),
    "a wrong bit in the middle": (honest(flipped(DATA, len(DATA) // 2)), "E1601"),
    "a wrong bit at the end": (honest(flipped(DATA, len(DATA) - 1)), "E1601"),
    "nothing": (truncated(0.0), "E1601"),
    "half": (truncated(0.5), "E1601"),
    "shifted by one": (shifted, "E1601"),
    "a message": (talking, "E1102"),
    "silence": (stalling, "E1605"),
    "a byte at a time": (dripping, "E1605"),
    "empty pieces without end": (empty_forever, "E1605"),
    "a failure that looks like ours": (refusing, "E1603"),
}


@pytest.mark.parametrize("name", CHEATS)
async def test_a_cheat_alone_is_dropped_and_nothing_of_it_is_used(name: str) -> None:
    answer, code = CHEATS[name]
    async with net() as world:
        cheat = world.cheat(DATA, answer)
        with pytest.raises(UnavailableError) as caught:
            await world.fetcher.fetch(BLOB, [cheat])
        assert caught.value.code == "E1602"
        assert world.dropped() == {cheat.node: code}
        assert not world.blobs.has(BLOB)


@pytest.mark.parametrize("name", CHEATS)
async def test_a_cheat_does_not_stop_the_others(name: str) -> None:
    answer, _ = CHEATS[name]
    async with net() as world:
        cheat = world.cheat(DATA, answer)
        await world.fetcher.fetch(BLOB, [cheat, world.source(DATA), cheat])
        assert world.blobs.read(BLOB, 0, len(DATA)) == DATA
        assert set(world.dropped()) <= {cheat.node}


@pytest.mark.parametrize(
    "found",
    [
        BlobFound(len(DATA) + 1, chunk_hashes_of(DATA)),
        BlobFound(len(DATA), chunk_hashes_of(flipped(DATA, 5))),
        BlobFound(len(DATA), chunk_hashes_of(DATA)[::-1]),
        BlobFound(len(DATA), ()),
        BlobFound((1 << 63) - 1, ()),
        BlobFound(0, ()),
    ],
)
async def test_a_lie_about_the_list_condemns_whoever_tells_it(found: BlobFound) -> None:
    async with net() as world:
        liar = world.cheat(DATA, honest(DATA), found)
        with pytest.raises(UnavailableError):
            await world.fetcher.fetch(BLOB, [liar])
        assert world.dropped() == {liar.node: "E1601"}
        assert world.asked == []
        await world.fetcher.fetch(BLOB, [liar, world.source(DATA)])
        assert world.blobs.read(BLOB, 0, len(DATA)) == DATA


async def test_many_cheats_and_one_honest_source() -> None:
    async with net() as world:
        cheats = [world.cheat(DATA, answer) for answer, _ in CHEATS.values()]
        gone = world.source(DATA)
        world.crash(gone)
        await world.fetcher.fetch(BLOB, [gone, *cheats, world.source(DATA)])
        assert world.blobs.read(BLOB, 0, len(DATA)) == DATA


@given(
    cheats=st.lists(st.sampled_from(sorted(set(CHEATS) - {"a byte at a time"})), max_size=4),
    place=st.integers(0, 4),
    framing=st.integers(1, 3 * CHUNK_BYTES),
)
@settings(max_examples=15)
async def test_an_honest_source_is_enough(cheats: list[str], place: int, framing: int) -> None:
    async def oddly_framed(request: FetchBlob) -> AsyncIterator[Message | bytes]:
        end = request.offset + request.length_bytes
        step = max(framing, CHUNK_BYTES // 8)
        for at in range(request.offset, end, step):
            yield DATA[at : min(at + step, end)]

    limits = FetchLimits(stat_s=0.2, stall_s=0.1, hedge_s=0.01)
    async with net(limits) as world:
        sources = [world.cheat(DATA, CHEATS[name][0]) for name in cheats]
        sources.insert(place, world.cheat(DATA, oddly_framed))
        await world.fetcher.fetch(BLOB, sources)
        assert world.blobs.read(BLOB, 0, len(DATA)) == DATA


# failures -------------------------------------------------------------------------------------------------------------


async def test_nobody_has_it() -> None:
    async with net() as world:
        with pytest.raises(UnavailableError) as caught:
            await world.fetcher.fetch(BLOB, [world.source(b"something else"), world.source()])
        assert caught.value.code == "E1602"
        assert "does not have it" in caught.value.cause
        with pytest.raises(UnavailableError):
            await world.fetcher.fetch(BLOB, [])
        assert world.faults == []


async def test_more_than_was_agreed_is_refused_before_any_byte_is_asked_for() -> None:
    async with net() as world:
        with pytest.raises(RejectedError) as caught:
            await world.fetcher.fetch(BLOB, [world.cheat(DATA, honest(DATA))], len(DATA) - 1)
        assert caught.value.code == "E1604"
        assert world.asked == []
        await world.fetcher.fetch(BLOB, [world.source(DATA)], len(DATA))
        with pytest.raises(RejectedError):
            await world.fetcher.fetch(BLOB, [], len(DATA) - 1)


async def test_no_room_is_our_error_and_nobody_is_blamed() -> None:
    async with net(quota_bytes=MIB) as world:
        with pytest.raises(UnavailableError) as caught:
            await world.fetcher.fetch(BLOB, [world.source(DATA)])
        assert caught.value.code == "E1603"
    async with net() as world:
        world.blobs.disk.full = True
        with pytest.raises(UnavailableError) as caught:
            await world.fetcher.fetch(BLOB, [world.source(DATA), world.source(DATA)])
        assert caught.value.code == "E1603"
        assert world.faults == []
        assert not list((world.blobs.disk.folder / "blobs" / "partial").iterdir())


async def test_a_source_that_vanishes_in_the_middle_is_replaced() -> None:
    async with net() as world:
        halfway = asyncio.Event()

        async def vanishing(request: FetchBlob) -> AsyncIterator[Message | bytes]:
            yield DATA[:CHUNK_BYTES]
            halfway.set()
            await asyncio.Event().wait()

        first, second = world.cheat(DATA, vanishing), world.source(DATA)
        world.crash(second)
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(world.fetcher.fetch(BLOB, [first, world.source(DATA), second]))
            await halfway.wait()
            world.crash(first)
        assert fetching.result() == len(DATA)


async def test_what_arrived_before_a_restart_is_not_fetched_again() -> None:
    async with net() as world:
        arrived = asyncio.Event()

        async def some(request: FetchBlob) -> AsyncIterator[Message | bytes]:
            yield DATA[: 4 * CHUNK_BYTES]
            await asyncio.Event().wait()

        def progress(here: int, size: int) -> None:
            if here >= 3 * CHUNK_BYTES:
                arrived.set()

        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(world.fetcher.fetch(BLOB, [world.cheat(DATA, some)], on_progress=progress))
            await arrived.wait()
            fetching.cancel()
        world.blobs.close()
        restarted = world.life.enter_context(closing(SimBlobs(256 * MIB, world.blobs.disk)))
        fetcher = Fetcher(world.rpc, restarted)
        world.asked.clear()
        await fetcher.fetch(BLOB, [world.cheat(DATA, honest(DATA))])
        assert restarted.read(BLOB, 0, len(DATA)) == DATA
        assert sum(request.length_bytes for _, request in world.asked) <= len(DATA) - 3 * CHUNK_BYTES


async def test_memory_bounds_the_streams_that_run_at_once() -> None:
    async with net(FetchLimits(memory_bytes=2 * STREAM_BYTES, stall_s=60, hedge_s=0.001)) as world:
        started = asyncio.Event()

        async def waiting(request: FetchBlob) -> AsyncIterator[Message | bytes]:
            if len(world.asked) == 2:
                started.set()
            await asyncio.Event().wait()
            yield b""

        sources = [world.cheat(DATA, waiting) for _ in range(6)]
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(world.fetcher.fetch(BLOB, sources))
            await started.wait()
            for _ in range(500):  # plenty of turns for a third request to go out and arrive
                await asyncio.sleep(0)
            assert len(world.asked) == 2
            fetching.cancel()
