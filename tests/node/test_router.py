"""The answering half of a call, against callers that keep no rule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.test_framed import Scripted

from fallow.errors import fail
from fallow.node import router as router_module
from fallow.node.router import Caller, Limits, Router, answer, refuse, to_failure
from fallow.units import NodeId
from fallow.wire.codec import decode, encode
from fallow.wire.frames import FrameKind, FrameReader, encode_call, encode_frame
from fallow.wire.messages import CancelTask, CloseLease, Failure, LaneResult, LaneTask, Message, Ok, OpenLane

WORD = bytes(32)
STRANGER = Caller(NodeId(b"\x01" * 32))


def echo() -> Router:
    router = Router()

    @router.on(CancelTask)
    async def _(_caller: Caller, request: CancelTask) -> Message:
        if request.lease[0] == 1:
            await asyncio.sleep(60)
        return Ok()

    @router.stream(OpenLane)
    async def _(_caller: Caller, _request: OpenLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for task in inputs:
            assert isinstance(task, LaneTask)
            yield LaneResult(task.number, task.params, 1)

    return router


class Waiting(Scripted):
    """A caller that said all it has to say and waits for the answer, which keeps its side of the stream open."""

    async def read(self, limit: int) -> bytes:
        return await super().read(limit) or await asyncio.get_running_loop().create_future()


async def answers(*pieces: bytes, limits: Limits | None = None, waits: bool = False) -> list[tuple[FrameKind, bytes]]:
    scripted = Waiting(*pieces) if waits else Scripted(*pieces)
    await answer(echo(), STRANGER, scripted, limits or Limits())
    reader = FrameReader()
    reader.feed(b"".join(scripted.sent))
    return list(reader)


def failure_in(frames: list[tuple[FrameKind, bytes]]) -> str:
    [(kind, payload)] = frames
    assert kind is FrameKind.FAIL
    return decode(Failure, payload).code


CALL = encode_call(5000, CancelTask(WORD, WORD))
LANE = encode_call(5000, OpenLane(WORD))
INPUT = encode_frame(FrameKind.INPUT, encode(LaneTask(1, b"p")))
END = encode_frame(FrameKind.END)


async def test_a_call_is_answered() -> None:
    assert await answers(CALL) == [(FrameKind.REPLY, encode(Ok()))]
    assert await answers(LANE + INPUT + INPUT, END, waits=True) == [
        (FrameKind.ITEM, encode(LaneResult(1, b"p", 1))),
        (FrameKind.ITEM, encode(LaneResult(1, b"p", 1))),
        (FrameKind.END, b""),
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [END],
        [INPUT],
        [encode_frame(FrameKind.CALL, b"")],
        [encode_frame(FrameKind.CALL, b"\x00\x00\x00\x01")],
        [encode_frame(FrameKind.CALL, b"\x00\x00\x00\x01\xc1")],
        [encode_call(1000, CloseLease(WORD))],
        [b"\xff\xff\xff\xff\x00"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [],
    ],
)
async def test_what_is_no_call_is_told_so(pieces: list[bytes]) -> None:
    assert failure_in(await answers(*pieces)) == "E1102"


@pytest.mark.parametrize("bad", [b"\xff" * 9, CALL, encode_frame(FrameKind.INPUT, b"\xc1")])
async def test_nonsense_in_the_middle_ends_a_stream_without_an_end(bad: bytes) -> None:
    kinds = [kind for kind, _ in await answers(LANE + bad)]
    assert FrameKind.END not in kinds


async def test_a_caller_that_breaks_off_gets_nothing() -> None:
    assert await answers(CALL[:-1]) == []
    assert await answers(LANE, INPUT[:-1]) == []


async def test_a_frame_larger_than_a_caller_may_send_is_refused() -> None:
    assert failure_in(await answers(CALL, limits=Limits(input_bytes=20))) == "E1102"


async def test_a_deadline_of_nothing_is_over_at_once() -> None:
    assert failure_in(await answers(encode_call(10, CancelTask(b"\1" * 32, WORD)))) == "E1802"


async def test_a_caller_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(Scripted):
        async def read(self, limit: int) -> bytes:
            await asyncio.sleep(60)
            return b""

    monkeypatch.setattr(router_module, "FIRST_FRAME_S", 0.02)
    mute = Mute()
    await answer(echo(), STRANGER, mute, Limits())
    assert mute.finished


async def test_a_caller_that_does_not_read_its_failure_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "FAREWELL_S", 0.02)
    for serve in (lambda stream: answer(echo(), STRANGER, stream, Limits()), refuse):
        deaf = Scripted(END)
        deaf.gate.clear()
        await serve(deaf)
        assert deaf.aborted


async def test_cancelling_aborts_the_stream() -> None:
    scripted = Scripted(encode_call(60_000, CancelTask(b"\1" * 32, WORD)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await answer(echo(), STRANGER, scripted, Limits())
    assert scripted.aborted


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_whatsoever_upset_the_router(pieces: list[bytes]) -> None:
    async def once() -> None:
        async with asyncio.timeout(5):
            await answer(echo(), STRANGER, Scripted(*[piece for piece in pieces if piece]), Limits())

    asyncio.run(once())


def test_two_handlers_for_one_request_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        echo().include(echo())


def test_a_router_takes_over_anothers_handlers() -> None:
    router = Router()
    router.include(echo())
    assert router.read(encode(CancelTask(WORD, WORD))) == CancelTask(WORD, WORD)
    unary, streaming = router.handlers(OpenLane)
    assert unary is None
    assert streaming is not None


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("/home/me/x.txt is missing", "(a path) is missing"),
        ("Cannot read '/etc/a b': no", "Cannot read '(a path) b': no"),
        ("see https://fallow.network/docs and 3/4 of it", "see https://fallow.network/docs and 3/4 of it"),
        ("~/.fallow is full", "(a path) is full"),
    ],
)
def test_strangers_learn_no_paths(what: str, told: str) -> None:
    error = fail("E1301", what, cause=what)
    assert to_failure(error, STRANGER).what == told
    assert to_failure(error, STRANGER).cause == told
    assert to_failure(error, Caller(NodeId(b""))).what == what
