"""How messages lie on a byte stream: `u32 big-endian size of the payload | u8 kind | payload`, without any I/O.

One stream carries one call. The caller sends a CALL, whose payload is the time it will wait as u32 milliseconds
followed by the request, then INPUT items if the call takes any, then END. The other side answers with one REPLY, or
with ITEM and RAW frames and an END, or with a FAIL. The same frames run over iroh streams and the owner's Unix socket.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from fallow.errors import fail
from fallow.wire.codec import MAX_MESSAGE_BYTES, encode

MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + 64
"""The largest payload that anybody sends: a message of the largest size and a CALL's deadline."""
MAX_TIMEOUT_MS = (1 << 32) - 1

_HEADER = struct.Struct(">IB")
_TIMEOUT = struct.Struct(">I")
HEADER_BYTES = _HEADER.size


class FrameKind(IntEnum):
    CALL = 0
    REPLY = 1
    ITEM = 2
    """One message of the answering side's stream."""
    INPUT = 3
    """One message of the calling side's stream."""
    END = 4
    FAIL = 5
    """A `Failure`; nothing follows it."""
    RAW = 6
    """Bytes of a blob, as they are."""


_KINDS = tuple(FrameKind)


def encode_frame(kind: FrameKind, payload: bytes = b"") -> bytes:
    """One frame. Raises struct.error for a payload of 4 GiB or more."""
    return _HEADER.pack(len(payload), kind) + payload


def encode_header(kind: FrameKind, size_bytes: int) -> bytes:
    """What comes before a payload of `size_bytes`, for who writes large ones from where they lie."""
    return _HEADER.pack(size_bytes, kind)


def encode_call(timeout_ms: int, request: msgspec.Struct) -> bytes:
    """The CALL frame that opens a stream; `timeout_ms` is a duration, so that clocks need not agree. Clamped to what
    32 bits hold."""
    timeout = _TIMEOUT.pack(min(max(timeout_ms, 0), MAX_TIMEOUT_MS))
    return encode_frame(FrameKind.CALL, timeout + encode(request))


def split_call(payload: bytes) -> tuple[int, bytes]:
    """A CALL's payload -> (timeout_ms, the request's bytes). Raises PeerFault E1102 when it is too short."""
    if len(payload) < _TIMEOUT.size:
        raise fail("E1102", "a call without a deadline")
    return _TIMEOUT.unpack_from(payload)[0], payload[_TIMEOUT.size :]


class FrameReader:
    """Cuts frames out of a byte stream. Feed it what arrives and iterate; each loop takes the complete frames and ends
    at the first incomplete one, and the next loop goes on from there. Holds at most one incomplete frame (of
    `max_bytes` payload at most) and what was fed since the last loop, so a peer that declares a huge frame costs
    nothing.

    Iterating raises PeerFault E1102, now and ever after, at a frame that declares more than `max_bytes` or an unknown
    kind: after that no boundary in the stream can be trusted."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: deque[bytes] = deque()
        self._at = 0  # where in the first piece the next frame starts
        self._held = 0  # bytes not consumed, in all pieces
        self._needed = HEADER_BYTES

    @property
    def missing_bytes(self) -> int:
        """How many bytes at least must come before another frame can be complete: a good size for the next read."""
        return max(self._needed - self._held, 1)

    @property
    def held_bytes(self) -> int:
        """How much is held of frames that are not taken yet."""
        return self._held

    @property
    def empty(self) -> bool:
        """Whether the stream may end here: no part of a frame is held."""
        return self._held == 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the stream, in order, cut anywhere."""
        if data:
            self._pieces.append(data)
            self._held += len(data)

    def __iter__(self) -> Iterator[tuple[FrameKind, bytes]]:
        return self

    def __next__(self) -> tuple[FrameKind, bytes]:
        self._require(HEADER_BYTES)
        size, kind = self._header()
        if size > self._max_bytes:
            raise fail("E1102", f"a frame of {size} bytes where at most {self._max_bytes} are allowed")
        if kind >= len(_KINDS):
            raise fail("E1102", f"a frame of unknown kind {kind}")
        self._require(HEADER_BYTES + size)
        self._take(HEADER_BYTES)
        self._needed = HEADER_BYTES
        return _KINDS[kind], self._take(size)

    def _require(self, count: int) -> None:
        """Have `count` unconsumed bytes, or end the loop."""
        if self._held < count:
            self._needed = count
            raise StopIteration

    def _header(self) -> tuple[int, int]:
        if len(self._pieces[0]) - self._at < HEADER_BYTES:  # it was cut in two
            head, self._at = self._pieces.popleft()[self._at :], 0
            while len(head) < HEADER_BYTES:
                head += self._pieces.popleft()
            self._pieces.appendleft(head)
        return _HEADER.unpack_from(self._pieces[0], self._at)

    def _take(self, count: int) -> bytes:
        """Consume `count` of the held bytes; each is copied once, however many pieces they came in."""
        self._held -= count
        first, start = self._pieces[0] if self._pieces else b"", self._at
        self._at = start + count
        if self._at < len(first):
            return first[start : self._at]
        parts, left = list[bytes | memoryview](), count
        while left:
            piece = self._pieces[0]
            part = memoryview(piece)[start : start + left]
            parts.append(part)
            left, self._at = left - len(part), start + len(part)
            if self._at == len(piece):
                self._pieces.popleft()
                self._at = 0
            start = self._at
        return b"".join(parts)
