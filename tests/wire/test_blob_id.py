"""Blob ids: every lie about content, size or order has another id."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fallow.wire.blob_id import (
    CHUNK_BYTES,
    CONTEXT,
    MAX_BLOB_BYTES,
    MAX_CHUNKS,
    blob_id,
    blob_id_of,
    chunk_count,
    chunk_hash,
    chunk_hashes_of,
    chunk_length,
    chunk_pieces,
    pieces_hash,
)
from fallow.wire.codec import MAX_MESSAGE_BYTES, encode
from fallow.wire.messages import BlobFound


def test_the_format_is_pinned() -> None:
    """Other implementations must come to the same ids."""
    assert blob_id_of(b"").hex() == "1f4c162ff5c8cb6e9e36240b0582e7a7e32583cbde6693fce4f344e0de076120"
    assert blob_id_of(b"fallow").hex() == "190984c6c5c5cd9b6ad3d20998cdedea1a14b32754edb625cee81fc8f566005d"
    assert (
        blob_id_of(bytes(CHUNK_BYTES + 1)).hex() == "426cd37fb47b89cbc82f47199e94931ddcae3e1ee5ab331395978cdd58c6ccf6"
    )


@given(st.lists(st.sampled_from([0, 1, 7, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5]), max_size=5))
def test_what_comes_in_parts_has_the_chunks_of_the_whole(sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(parts)
    found = [(pieces_hash(pieces), length) for pieces, length in chunk_pieces(parts)]
    assert tuple(digest for digest, _ in found) == chunk_hashes_of(whole)
    assert [length for _, length in found] == [chunk_length(len(whole), index) for index in range(len(found))]


def test_an_id_is_what_the_docstring_says() -> None:
    data = bytes(range(256)) * 5000
    hashes = blake3(data[:CHUNK_BYTES]).digest() + blake3(data[CHUNK_BYTES:]).digest()
    assert blob_id_of(data) == blake3(len(data).to_bytes(8, "big") + hashes, derive_key_context=CONTEXT).digest()


@given(st.integers(0, MAX_BLOB_BYTES))
def test_chunks_cover_a_blob_exactly(size_bytes: int) -> None:
    count = chunk_count(size_bytes)
    if count:
        assert 0 < chunk_length(size_bytes, count - 1) <= CHUNK_BYTES
        assert (count - 1) * CHUNK_BYTES + chunk_length(size_bytes, count - 1) == size_bytes
    for index in (-1, count):
        with pytest.raises(AssertionError):
            chunk_length(size_bytes, index)


@given(data=st.binary(max_size=200), other=st.binary(max_size=200), pad=st.integers(0, 3))
def test_other_content_has_another_id(data: bytes, other: bytes, pad: int) -> None:
    assert (blob_id_of(data) == blob_id_of(other)) == (data == other)
    assert (blob_id_of(data + bytes(pad)) == blob_id_of(data)) == (pad == 0)
    assert blob_id_of(memoryview(data)) == blob_id_of(bytearray(data)) == blob_id_of(data)


def test_another_order_or_size_is_another_blob() -> None:
    one, two = (blake3(bytes([n])).digest() for n in (1, 2))
    ids = {blob_id(hashes, 2 * CHUNK_BYTES - lack) for hashes in ((one, two), (two, one)) for lack in (0, 1)}
    assert len(ids) == 4


def test_a_chunk_cannot_pose_as_a_blob() -> None:
    inner = chunk_hashes_of(b"content")
    preimage = (7).to_bytes(8, "big") + b"".join(inner)
    assert chunk_hash(preimage) != blob_id(inner, 7)


@pytest.mark.parametrize(
    ("hashes", "size_bytes"),
    [
        ((), 1),
        ((bytes(32),), 0),
        ((bytes(32),), CHUNK_BYTES + 1),
        ((bytes(32),), -1),
        ((bytes(31),), 1),
        ((bytes(64), b""), CHUNK_BYTES + 1),
        ((), MAX_BLOB_BYTES + 1),
    ],
)
def test_pairs_that_name_nothing_are_refused(hashes: tuple[bytes, ...], size_bytes: int) -> None:
    with pytest.raises(ValueError, match="chunk"):
        blob_id(hashes, size_bytes)


def test_the_largest_list_fits_a_message() -> None:
    assert len(encode(BlobFound(MAX_BLOB_BYTES, (bytes(32),) * MAX_CHUNKS))) <= MAX_MESSAGE_BYTES
