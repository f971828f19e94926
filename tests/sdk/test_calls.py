"""The calling half of a call, against an answering half that says whatever it likes."""

from __future__ import annotations

import pytest
from tests.sdk.test_framed import Scripted

from fallow.errors import FallowError
from fallow.sdk.calls import CallStream
from fallow.wire.codec import encode
from fallow.wire.frames import FrameKind, FrameReader, encode_frame, split_call
from fallow.wire.messages import CancelTask, Failure, LaneTask, Ok

REQUEST = CancelTask(bytes(32), bytes(32))
ITEM, END = encode_frame(FrameKind.ITEM, encode(Ok())), encode_frame(FrameKind.END)
REPLY, RAW = encode_frame(FrameKind.REPLY, encode(Ok())), encode_frame(FrameKind.RAW, b"raw")
FAIL = encode_frame(FrameKind.FAIL, encode(Failure("E1302", "closed")))


def frames_of(scripted: Scripted) -> list[tuple[FrameKind, bytes]]:
    reader = FrameReader()
    reader.feed(b"".join(scripted.sent))
    return list(reader)


async def test_a_call_says_how_long_it_waits_and_what_it_wants() -> None:
    scripted = Scripted(REPLY)
    call = CallStream(scripted, None)
    await call.start(REQUEST, 1500, alone=True)
    assert scripted.finished
    assert await call.reply() == Ok()
    assert call.answered
    [(kind, payload)] = frames_of(scripted)
    assert kind is FrameKind.CALL
    assert split_call(payload) == (1500, encode(REQUEST))


async def test_a_stream_is_read_to_its_end() -> None:
    call = CallStream(Scripted(ITEM + RAW, ITEM, END), None)
    assert [item async for item in call] == [Ok(), b"raw", Ok()]
    assert [item async for item in call] == []


async def test_items_are_sent_until_finished() -> None:
    scripted = Scripted(END)
    call = CallStream(scripted, None)
    await call.send(LaneTask(1, b"p"))
    await call.send(b"bytes")
    await call.finish()
    await call.finish()
    assert [kind for kind, _ in frames_of(scripted)] == [FrameKind.INPUT, FrameKind.RAW, FrameKind.END]
    assert not scripted.finished  # the stream's own end would say that nobody waits for an answer
    with pytest.raises(FallowError) as caught:
        await call.send(b"late")
    assert caught.value.code == "E1801"


@pytest.mark.parametrize(
    ("pieces", "items", "code"),
    [
        ([ITEM], 1, "E1801"),
        ([ITEM, FAIL], 1, "E1302"),
        ([ITEM + FAIL], 1, "E1302"),
        ([encode_frame(FrameKind.ITEM, b"\xc1")], 0, "E1102"),
        ([encode_frame(FrameKind.INPUT, encode(Ok()))], 0, "E1102"),
        ([ITEM, b"\xff" * 9], 1, "E1102"),
        ([], 0, "E1801"),
    ],
)
async def test_a_stream_that_goes_wrong_gives_its_items_first(pieces: list[bytes], items: int, code: str) -> None:
    call = CallStream(Scripted(*pieces), None)
    for _ in range(items):
        assert await anext(call) == Ok()
    with pytest.raises(FallowError) as caught:
        await anext(call)
    assert caught.value.code == code
    assert [item async for item in call] == []
    with pytest.raises(FallowError):
        await call.send(b"after")


async def test_giving_up_aborts() -> None:
    scripted = Scripted(ITEM)
    call = CallStream(scripted, None)
    call.abort()
    assert scripted.aborted
    assert [item async for item in call] == []
