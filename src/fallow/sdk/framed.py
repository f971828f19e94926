"""Frames over any byte stream with asyncio: the part of a call that both of its sides share.

Reads come in big pieces and are cut into frames; writes of small frames are collected while an earlier write is under
way and go out as one. Both are bounded: a reader holds one piece and one incomplete frame, a writer waits once
`HIGH_WATER_BYTES` are collected. The node uses this over iroh streams, the SDK over the owner's Unix socket. With
strangers, what all readers together hold is bounded too (`OnHeld`), and so is the time that half a message is held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, Union

import msgspec

from fallow.errors import CODES, FallowError, fail
from fallow.units import plain
from fallow.wire.codec import decode, encode
from fallow.wire.frames import MAX_FRAME_BYTES, FrameKind, FrameReader, encode_frame, encode_header
from fallow.wire.messages import Failure, Message

SMALL_READ_BYTES = 1 << 16
BIG_READ_BYTES = 1 << 18
HIGH_WATER_BYTES = 1 << 18

HALF_S = 30.0
"""How long a stranger may take from the first byte of a message to its last."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task that somebody's TaskGroup keeps."""
OnHeld = Callable[[int], None]
"""Hears how many bytes a reader holds now; raises UnavailableError E1803 when they are too many."""


class ByteStream(Protocol):
    """`ports.Stream`, said again because the SDK stands below the ports."""

    async def send(self, data: bytes) -> None: ...

    async def finish(self) -> None: ...

    async def read(self, limit: int) -> bytes: ...

    def abort(self) -> None: ...


class FramedStream:
    """One stream's frames. `spawn` starts the task that writes behind; without it every `put` is a `send` of its own,
    for streams that collect by themselves. Not for several readers at once; several writers are fine. `hold` counts
    what comes from a stranger: a frame until the next one is asked for."""

    def __init__(
        self, stream: ByteStream, spawn: Spawn | None, max_bytes: int = MAX_FRAME_BYTES, hold: OnHeld | None = None
    ) -> None:
        self._stream, self._spawn, self._hold = stream, spawn, hold
        self._half_s: float | None = None
        self._reader = FrameReader(max_bytes)
        self._frames: deque[tuple[FrameKind, bytes]] = deque()
        self._nonsense: FallowError | None = None
        self._limit = SMALL_READ_BYTES
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._broken: FallowError | None = None

    @property
    def waiting(self) -> bool:
        """Whether the next frame is here already."""
        return bool(self._frames)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return self._writer is None

    async def next(self) -> tuple[FrameKind, bytes] | None:
        """The next frame, or None after the last. Raises PeerFault E1102 for what is no frame, UnavailableError E1801
        when the stream is gone or ends within a frame; of a stranger's also E1802 for half a frame whose rest does not
        come, and what `hold` raises."""
        while not self._frames:
            if self._nonsense is not None:
                raise self._nonsense
            piece = await (self._stream.read(self._limit) if self._hold is None else self._held(self._hold))
            if not piece:
                if not self._reader.empty:
                    raise fail("E1801", "The stream ended in the middle of a message.")
                return None
            self._limit = BIG_READ_BYTES if len(piece) >= SMALL_READ_BYTES else SMALL_READ_BYTES
            self._reader.feed(piece)
            try:
                self._frames.extend(self._reader)
            except FallowError as error:  # what came before it in the same piece still counts
                self._nonsense = error
        return self._frames.popleft()

    async def _held(self, hold: OnHeld) -> bytes:
        """The next piece of a stranger's stream."""
        before = self._reader.held_bytes
        hold(before)
        if not before:
            self._half_s = None
            piece = await self._stream.read(self._limit)
        else:
            now_s = asyncio.get_running_loop().time()
            self._half_s = self._half_s or now_s + HALF_S
            try:
                async with asyncio.timeout_at(self._half_s):
                    piece = await self._stream.read(self._limit)
            except TimeoutError:
                raise fail("E1802", f"The rest of a message did not come within {HALF_S:g} s.") from None
        hold(before + len(piece))
        return piece

    async def put(self, frame: bytes) -> None:
        """Write behind: returns at once unless much is waiting already. Raises E1801 when an earlier write failed, and
        ValueError for a frame that the other side would refuse."""
        await self._put(frame)

    async def put_item(self, item: Message | bytes, kind: FrameKind) -> None:
        """The same for one stream item. Many raw bytes are written from where they lie."""
        if isinstance(item, bytes) and len(item) > SMALL_READ_BYTES:
            await self._put(encode_header(FrameKind.RAW, len(item)), item)
        else:
            await self._put(write_item(item, kind))

    async def _put(self, *parts: bytes) -> None:
        size_bytes = sum(map(len, parts))
        if size_bytes > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {size_bytes} bytes; at most {MAX_FRAME_BYTES} are taken")
        if self._spawn is None:
            return await self._stream.send(b"".join(parts))
        if self._broken is not None:
            raise self._broken
        self._pending.extend(parts)
        self._pending_bytes += size_bytes
        if self._writer is None:
            self._writer = self._spawn(self._write_behind())
        while self._pending_bytes > HIGH_WATER_BYTES and self._broken is None:
            self._room.clear()
            await self._room.wait()
        return None

    async def flush(self) -> None:
        """Wait until the stream has taken everything. Raises E1801 when it cannot."""
        while self._writer is not None:
            self._room.clear()
            await self._room.wait()
        if self._broken is not None:
            raise self._broken

    async def close_with(self, frame: bytes) -> None:
        """Write the last frame and finish this direction."""
        await self.flush()
        await self._stream.send(frame)
        await self._stream.finish()

    async def _write_behind(self) -> None:
        try:
            while self._pending:
                parts, self._pending, self._pending_bytes = self._pending, [], 0
                self._room.set()
                for data in _joined(parts):
                    await self._stream.send(data)
        except FallowError as error:
            self._broken = error
        finally:
            # also when cancelled: nobody may wait for room that will never come
            self._broken = self._broken or (fail("E1801", "The call was given up.") if self._pending else None)
            self._writer = None
            self._room.set()

    def abort(self) -> None:
        self._stream.abort()


def _joined(parts: list[bytes]) -> Iterator[bytes]:
    """`parts` in fewer pieces: neighbours that are small become one."""
    small: list[bytes] = []
    for part in parts:
        if len(part) <= SMALL_READ_BYTES:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield small[0] if len(small) == 1 else b"".join(small)


# messages -------------------------------------------------------------------------------------------------------------

_known: tuple[int, object] = (0, Message)


def _message_types() -> list[type[Message]]:
    found: dict[object, type[Message]] = {}
    queue = deque(Message.__subclasses__())
    while queue:
        kind = queue.popleft()
        queue.extend(kind.__subclasses__())
        found[kind.__struct_config__.tag] = kind
    return list(found.values())


def read_message(payload: bytes) -> Message:
    """Any message whose module has been imported: a reply or an item is always declared beside its request. Raises
    PeerFault E1102."""
    global _known
    try:
        return decode(_known[1], payload)
    except FallowError:
        types = _message_types()
        if len(types) == _known[0]:
            raise
        _known = (len(types), Union[tuple(types)])  # noqa: UP007 - built from a list
        return decode(_known[1], payload)


def write_item(item: Message | bytes, kind: FrameKind) -> bytes:
    """A frame of one stream item: messages as `kind`, bytes as they are."""
    if isinstance(item, msgspec.Struct):
        return encode_frame(kind, encode(item))
    return encode_frame(FrameKind.RAW, item)


def read_failure(payload: bytes, *, trusted: bool) -> FallowError:
    """The error that the other side sent. What a stranger sends cannot pass for a bug of ours or steer a terminal."""
    failure = decode(Failure, payload)
    if failure.code not in CODES:
        return fail("E1806", f"The other node failed with an unknown code ({plain(failure.code)[:16]}).")
    texts = {
        "cause": plain(failure.cause), "money": plain(failure.money), "next_step": plain(failure.next_step),
    }  # fmt: skip
    if not trusted:
        texts = {"money": texts["money"]} if failure.code == "E9001" else texts | {"next_step": ""}
    code = "E1806" if failure.code == "E9001" and not trusted else failure.code
    return fail(code, plain(failure.what), **texts)
