from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError, PeerFault
from fallow.wire.codec import decode
from fallow.wire.frames import (
    HEADER_BYTES,
    MAX_TIMEOUT_MS,
    FrameKind,
    FrameReader,
    encode_call,
    encode_frame,
    split_call,
)
from fallow.wire.messages import Ok, SearchOffers

FRAMES = st.lists(st.tuples(st.sampled_from(list(FrameKind)), st.binary(max_size=40)), max_size=8)


def refusal(reader: FrameReader) -> str:
    with pytest.raises(FallowError) as refused:
        next(reader)
    assert refused.value.code == "E1102"
    return refused.value.what


def test_a_frame_is_size_kind_payload() -> None:
    assert encode_frame(FrameKind.REPLY, b"abc") == b"\x00\x00\x00\x03\x01abc"
    assert encode_frame(FrameKind.END) == b"\x00\x00\x00\x00\x04"


def test_the_kinds_have_their_numbers() -> None:
    assert [kind.name for kind in FrameKind] == ["CALL", "REPLY", "ITEM", "INPUT", "END", "FAIL", "RAW"]
    assert list(FrameKind) == list(range(7))


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_frames_come_out_whole_however_the_stream_is_cut(
    frames: list[tuple[FrameKind, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    reader, found, at, turn = FrameReader(40), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
        if turn % 3:  # now and then more is fed before anybody looks
            found += list(reader)
    found += list(reader)
    assert found == frames
    assert reader.empty


@given(FRAMES.filter(bool), st.data())
def test_nothing_comes_out_of_a_part_of_a_frame(frames: list[tuple[FrameKind, bytes]], data: st.DataObject) -> None:
    whole = b"".join(encode_frame(kind, payload) for kind, payload in frames[:-1])
    last = encode_frame(*frames[-1])
    cut = data.draw(st.integers(1, len(last) - 1))
    reader = FrameReader(40)
    reader.feed(whole + last[:cut])
    assert list(reader) == frames[:-1]
    assert not reader.empty
    assert 1 <= reader.missing_bytes <= len(last) - cut
    reader.feed(last[cut:])
    assert list(reader) == frames[-1:]


def test_what_is_missing_is_known_as_soon_as_the_header_is_there() -> None:
    frame = encode_frame(FrameKind.RAW, bytes(1000))
    reader = FrameReader()
    assert reader.missing_bytes == HEADER_BYTES
    reader.feed(frame[:8])
    assert list(reader) == []
    assert reader.missing_bytes == len(frame) - 8
    reader.feed(frame[8:])
    assert [len(payload) for _, payload in reader] == [1000]
    assert reader.missing_bytes == HEADER_BYTES


def test_iteration_may_stop_in_the_middle_and_go_on() -> None:
    reader = FrameReader()
    reader.feed(b"".join(encode_frame(FrameKind.ITEM, bytes((n,))) for n in range(5)))
    assert next(reader)[1] == b"\0"
    reader.feed(encode_frame(FrameKind.END)[:3])
    assert [payload for _, payload in reader] == [b"\1", b"\2", b"\3", b"\4"]
    reader.feed(encode_frame(FrameKind.END)[3:])
    assert list(reader) == [(FrameKind.END, b"")]


def test_a_frame_that_is_too_large_is_refused_at_its_header_and_for_good() -> None:
    reader = FrameReader(10)
    reader.feed(encode_frame(FrameKind.ITEM, bytes(10)) + struct.pack(">IB", 11, FrameKind.ITEM))
    assert next(reader) == (FrameKind.ITEM, bytes(10))
    assert "11 bytes" in refusal(reader)
    reader.feed(encode_frame(FrameKind.ITEM, b"later"))
    assert "11 bytes" in refusal(reader)


def test_a_huge_declaration_costs_nothing() -> None:
    reader = FrameReader()
    reader.feed(b"\xff\xff\xff\xff\x02")
    refusal(reader)


@given(st.integers(7, 255))
def test_an_unknown_kind_is_refused(kind: int) -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">IB", 0, kind))
    assert str(kind) in refusal(reader)


@given(st.binary(max_size=64))
def test_noise_gives_frames_or_a_refusal(data: bytes) -> None:
    reader = FrameReader(16)
    reader.feed(data)
    found: list[tuple[FrameKind, bytes]] = []
    with suppress(PeerFault):
        found.extend(reader)
    assert data.startswith(b"".join(encode_frame(kind, payload) for kind, payload in found))


def test_a_call_carries_its_deadline() -> None:
    reader = FrameReader()
    reader.feed(encode_call(1500, SearchOffers("echo")))
    [(kind, payload)] = reader
    assert kind is FrameKind.CALL
    timeout_ms, request = split_call(payload)
    assert timeout_ms == 1500
    assert decode(SearchOffers, request) == SearchOffers("echo")


@pytest.mark.parametrize(
    ("asked", "sent"), [(-1, 0), (0, 0), (MAX_TIMEOUT_MS, MAX_TIMEOUT_MS), (1 << 40, MAX_TIMEOUT_MS)]
)
def test_deadlines_are_clamped(asked: int, sent: int) -> None:
    assert split_call(encode_call(asked, Ok())[HEADER_BYTES:])[0] == sent


def test_a_call_without_a_deadline_is_refused() -> None:
    with pytest.raises(FallowError) as refused:
        split_call(b"\0\0\0")
    assert refused.value.code == "E1102"
