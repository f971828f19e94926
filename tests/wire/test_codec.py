from __future__ import annotations

import struct
import sys
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.making import structs
from tests.wire.parties import RIGHT, receipt

from fallow.errors import FallowError, PeerFault, UsageError
from fallow.wire.codec import MAX_MESSAGE_BYTES, Family, UnheardError, decode, encode, recall
from fallow.wire.documents import AnyDocument, Voucher
from fallow.wire.messages import (
    BlobFound,
    Claimed,
    Failure,
    LaneItem,
    LaneResult,
    LaneTask,
    Ok,
    Progress,
    SearchOffers,
)
from fallow.wire.receipts import MAX_RECEIPT_BYTES

ANSWERS = LaneItem | LaneResult | Ok | Failure | Progress
FIND = SearchOffers("echo", b"", 5)


def refusal(data: bytes, kind: object = SearchOffers, limit: int = MAX_MESSAGE_BYTES) -> str:
    with pytest.raises(FallowError) as refused:
        decode(kind, data, limit)
    assert isinstance(refused.value, PeerFault)
    assert refused.value.code == "E1102"
    return refused.value.what


@given(st.one_of(structs(LaneItem), structs(LaneResult), structs(Failure), structs(Progress)))
def test_what_goes_in_comes_out(message: msgspec.Struct) -> None:
    assert decode(ANSWERS, encode(message)) == message
    assert decode(type(message), encode(message)) == message


def test_one_byte_too_many_is_refused_before_it_is_read() -> None:
    data = encode(FIND)
    assert decode(SearchOffers, data, len(data)) == FIND
    assert "allowed" in refusal(data, limit=len(data) - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\xc1",
        b"\x90",
        b"\x91\xa2Ok\x00",
        b"\x81\xa4type\xa2Ok",
        b"\x91\xa3Nok",
        b"\x92\xa2Ok\xc0",
        encode(FIND)[:-1],
        encode(FIND) + b"\x00",
        encode(Ok()),
        b"\xdd\xff\xff\xff\xff",
        b"\x94\xacSearchOffers\xdb\xff\xff\xff\xff",
        b"\x94\xacSearchOffers\xa2\xff\xfe\xc4\x00\x05",
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    refusal(data)


@given(st.binary(max_size=200))
def test_noise_never_raises_anything_else(data: bytes) -> None:
    try:
        found = decode(ANSWERS, data)
    except PeerFault:
        return
    assert encode(found) == data


@given(st.data())
def test_a_touched_message_is_refused_or_another_message(data: st.DataObject) -> None:
    """Never two byte strings with one meaning."""
    message = data.draw(structs(LaneResult))
    sent = bytearray(encode(message))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(PeerFault):
        assert decode(ANSWERS, bytes(sent)) != message


def wider(value: int) -> bytes:
    return b"\xcf" + struct.pack(">Q", value)


def test_a_second_encoding_of_the_same_message_is_refused() -> None:
    """Msgpack itself takes all of these for the same message, and a hash does not."""
    voucher = Voucher(bytes(32), 5)
    true = encode(voucher)
    assert decode(AnyDocument, true) == voucher
    for twin in (
        true[:-1] + wider(5),
        b"\xdc\x00\x03" + true[1:],
        true.replace(b"\xc4\x20", b"\xc5\x00\x20"),
        true.replace(b"\xa7Voucher", b"\xd9\x07Voucher"),
    ):
        assert twin != true
        assert msgspec.msgpack.decode(twin, type=AnyDocument) == voucher
        assert "canonical" in refusal(twin, AnyDocument)


def test_map_keys_have_one_order_and_no_doubles() -> None:
    claimed = Claimed(bytes(32), RIGHT, receipt().claim, {"b": 1, "a": 2}, ())
    true = encode(claimed)
    assert true == encode(msgspec.structs.replace(claimed, metrics={"a": 2, "b": 1}))
    assert b"\x82\xa1a\x02\xa1b\x01" in true
    for pairs in (b"\x82\xa1b\x01\xa1a\x02", b"\x83\xa1a\x02\xa1a\x02\xa1b\x01"):
        assert "canonical" in refusal(true.replace(b"\x82\xa1a\x02\xa1b\x01", pairs), Claimed)


def test_booleans_and_floats_are_no_integers() -> None:
    head = encode(FIND)[:-1]
    for value in (b"\xc3", b"\xcb\x40\x14\x00\x00\x00\x00\x00\x00", b"\xa15", b"\xc0"):
        refusal(head + value)


def test_unions_made_on_the_spot_do_not_pile_up() -> None:
    """Each `A | B` is a new object; the cache must stay right when their places in memory are used again."""
    task, item = encode(LaneTask(1, b"")), encode(LaneItem(1, b""))
    for _ in range(3000):
        assert decode(LaneTask | Ok, task) == LaneTask(1, b"")
        assert decode(LaneItem | Ok, item) == LaneItem(1, b"")
    refusal(item, LaneTask | Ok)


def test_the_largest_of_our_own_messages_fit() -> None:
    assert len(encode(BlobFound(1, (bytes(32),) * (1 << 17)))) < MAX_MESSAGE_BYTES
    assert MAX_RECEIPT_BYTES < MAX_MESSAGE_BYTES


class Older(msgspec.Struct, frozen=True, array_like=True, tag="Kept"):
    """A record before it gained a field."""

    number: int


class Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The same record now."""

    number: int
    note: str = "none"


class Newer(msgspec.Struct, frozen=True, array_like=True, tag="Kept"):
    """And one that a later version writes."""

    number: int
    note: str
    more: int


class Tagged(Kept, frozen=True, array_like=True, forbid_unknown_fields=True, tag="Kept"):
    """As logs hold it."""


def test_a_node_reads_what_an_older_version_of_it_wrote() -> None:
    written = encode(Older(7))
    assert recall(Tagged, written) == Tagged(7, "none")
    assert refusal(written, Tagged)  # a peer's message must still be canonical


@pytest.mark.parametrize("written", [b"", b"\xc1", encode(Newer(7, "a", 1)), encode(Older(7))[:-1]])
def test_what_the_node_cannot_read_of_its_own_is_said(written: bytes) -> None:
    with pytest.raises(FallowError) as refused:
        recall(Tagged, written)
    assert refused.value.code == "E1810"


class Fruit(Family):
    __slots__ = ()


class Apple(Fruit, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="apple"):
    taste: bytes
    inside: Fruit | None = None


class Bowl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    fruit: Fruit


def test_a_family_is_open_and_its_members_travel_as_ever() -> None:
    bowl = Bowl(Apple(b"sweet", Apple(b"sour")))
    assert encode(bowl) == msgspec.msgpack.encode([["apple", b"sweet", ["apple", b"sour", None]]])
    assert decode(Bowl, encode(bowl)) == recall(Bowl, encode(bowl)) == bowl
    assert recall(Bowl, msgspec.msgpack.encode([["apple", b"sweet"]])) == Bowl(Apple(b"sweet"))


def test_what_is_no_member_of_a_family_is_refused_by_name() -> None:
    quince = msgspec.msgpack.encode([["quince", b""]])
    assert "no fruit is called 'quince' here" in refusal(quince, Bowl)
    with pytest.raises(FallowError) as refused:
        recall(Bowl, quince)
    assert refused.value.code == "E1810"
    assert "quince" in refused.value.what
    assert isinstance(refused.value, UnheardError)
    with pytest.raises(UsageError) as damaged:
        recall(Bowl, msgspec.msgpack.encode([[None, b""]]))
    assert not isinstance(damaged.value, UnheardError)
    for fruit in (None, 5, [], {}, ["apple"], ["apple", "text"], ["apple", b"", None, 1], [None], [["apple"], b""]):
        refusal(msgspec.msgpack.encode([fruit]), Bowl)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)  # Python's own, which a library of the tests' raises
    try:
        refusal(b"\x91" * 100_000, Bowl)
    finally:
        sys.setrecursionlimit(before)
    refusal(b"\x91\xdd\xff\xff\xff\xff", Bowl)
    refusal(b"\x91\x81\x80\x00", Bowl)


@given(st.binary(max_size=60))
def test_noise_in_a_family_never_raises_anything_else(data: bytes) -> None:
    for raw in (b"\x91" + data, b"\x91\x92\xa5apple" + data):
        with suppress(PeerFault):
            assert encode(decode(Bowl, raw)) == raw
