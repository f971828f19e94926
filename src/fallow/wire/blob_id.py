"""How a blob is named, so that every piece of it can be checked on arrival against the name alone.

A blob is cut into chunks of 1 MiB (the last one may be shorter; an empty blob has none). A chunk's hash is plain BLAKE3
of its bytes. The blob's id is BLAKE3, in key-derivation mode under `CONTEXT`, of the size as 8 big-endian bytes
followed by the chunk hashes in order: a tree of two levels.

A downloader first asks for size and chunk hashes, and believes them only if they hash to the id; then each chunk is
checked as it arrives, from whatever source, before one byte of it is used or kept.

Defends against: any change, reordering, truncation or extension of the content; a lie about the size; a chunk that
poses as a blob (the two levels use different modes of BLAKE3). Does not defend against: a source that has nothing or
sends nothing, which is a matter of time limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from blake3 import blake3

from fallow.units import MIB, BlobId

CHUNK_BYTES = MIB
MAX_CHUNKS = 120_000
"""About 117 GiB: the list of hashes still fits one message."""
MAX_BLOB_BYTES = MAX_CHUNKS * CHUNK_BYTES
CONTEXT = "fallow.network 2026 blob id, 1 MiB chunks, v1"


def chunk_count(size_bytes: int) -> int:
    """How many chunks a blob of `size_bytes` has."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_length(size_bytes: int, index: int) -> int:
    """The length of chunk `index` of a blob of `size_bytes`. The index must be one of its chunks."""
    assert 0 <= index < chunk_count(size_bytes), "no such chunk"
    return min(CHUNK_BYTES, size_bytes - index * CHUNK_BYTES)


def chunk_hash(data: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte hash of one chunk's bytes."""
    return blake3(data).digest()


def blob_id(chunk_hashes: Sequence[bytes], size_bytes: int) -> BlobId:
    """The id of the blob with these chunks. Raises ValueError when so many chunks cannot have that size, or when it is
    more than MAX_BLOB_BYTES: such a pair names nothing, so a peer that sends one is lying."""
    if not 0 <= size_bytes <= MAX_BLOB_BYTES or len(chunk_hashes) != chunk_count(size_bytes):
        raise ValueError(f"{len(chunk_hashes)} chunks do not make {size_bytes} bytes")
    if any(len(one) != blake3.digest_size for one in chunk_hashes):
        raise ValueError("a chunk hash has 32 bytes")
    hasher = blake3(size_bytes.to_bytes(8, "big"), derive_key_context=CONTEXT)
    return BlobId(hasher.update(b"".join(chunk_hashes)).digest())


def blob_id_of(data: bytes | bytearray | memoryview) -> BlobId:
    """The id of `data`. About 4 GB/s on one core. Raises ValueError above MAX_BLOB_BYTES."""
    return blob_id(chunk_hashes_of(data), len(data))


def chunk_pieces(parts: Iterable[bytes | memoryview]) -> Iterator[tuple[list[memoryview], int]]:
    """The chunks of what `parts` (flat, of bytes) are together, each as the slices that make it up and its length in
    bytes. Nothing is copied, so that chunks may be hashed side by side."""
    pieces, length = list[memoryview](), 0
    for part in parts:
        view, at = memoryview(part), 0
        while at < len(view):
            taken = view[at : at + CHUNK_BYTES - length]
            pieces.append(taken)
            at, length = at + len(taken), length + len(taken)
            if length == CHUNK_BYTES:
                yield pieces, length
                pieces, length = [], 0
    if pieces:
        yield pieces, length


def pieces_hash(pieces: Iterable[memoryview]) -> bytes:
    """The hash of one chunk, given in pieces."""
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def chunk_hashes_of(data: bytes | bytearray | memoryview) -> tuple[bytes, ...]:
    """The chunk hashes of `data`, in order."""
    view = memoryview(data)
    return tuple(chunk_hash(view[start : start + CHUNK_BYTES]) for start in range(0, len(view), CHUNK_BYTES))
