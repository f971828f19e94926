"""The calling half of a call: send a CALL, then talk."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fallow.errors import FallowError, fail
from fallow.sdk.framed import ByteStream, FramedStream, OnHeld, Spawn, read_failure, read_message
from fallow.wire.frames import MAX_TIMEOUT_MS, FrameKind, encode_call, encode_frame
from fallow.wire.messages import Message

NO_DEADLINE_MS = MAX_TIMEOUT_MS


class CallStream:
    """An open call: `send` items to the other side, `finish` when there are no more, and iterate over what comes back.
    Iterating raises the FallowError that the other side failed with, E1801 when it is gone, E1102 when it talks
    nonsense. `trusted` when the other side is a node of our own; `hold` counts what comes from one that is not."""

    def __init__(
        self, stream: ByteStream, spawn: Spawn | None, *, trusted: bool = False, hold: OnHeld | None = None
    ) -> None:
        self._stream, self._trusted = stream, trusted
        self._framed = FramedStream(stream, spawn, hold=hold)
        self._over = False
        self._finished = False
        self.answered = False
        """Whether any byte of an answer was seen."""

    async def start(self, request: Message, timeout_ms: int = NO_DEADLINE_MS, *, alone: bool = False) -> None:
        """Send the CALL. Comes first, once; `alone` when nothing will follow it and one `reply` is due."""
        await self._stream.send(encode_call(timeout_ms, request))
        if alone:
            await self._stream.finish()

    async def send(self, item: Message | bytes) -> None:
        """Returns at once unless much is waiting to be written. Raises E1801 when the call is over or broken; why it is
        over, iterating tells."""
        if self._over or self._finished:
            raise fail("E1801", "The call is over.")
        await self._framed.put_item(item, FrameKind.INPUT)

    async def finish(self) -> None:
        """No more items from here. Repeating it is harmless. The byte stream itself stays open: its end tells the other
        side that nobody waits for its answer any more."""
        if not self._finished and not self._over:
            self._finished = True
            await self._framed.put(encode_frame(FrameKind.END))
            await self._framed.flush()

    def __aiter__(self) -> AsyncIterator[Message | bytes]:
        return self

    async def __anext__(self) -> Message | bytes:
        if self._over:
            raise StopAsyncIteration
        kind, payload = await self._next()
        if kind is FrameKind.ITEM:
            return self._read(payload)
        if kind is FrameKind.RAW:
            return payload
        self._over = True
        if kind is FrameKind.END:
            raise StopAsyncIteration
        if kind is FrameKind.REPLY:
            return self._read(payload)
        raise self._failure(kind, payload)

    async def reply(self) -> Message:
        """The one answer of a call that is no stream."""
        kind, payload = await self._next()
        self._over = True
        if kind is FrameKind.REPLY:
            return self._read(payload)
        raise self._failure(kind, payload)

    async def _next(self) -> tuple[FrameKind, bytes]:
        try:
            frame = await self._framed.next()
        except FallowError:
            self._over = True
            raise
        if frame is None:
            self._over = True
            raise fail("E1801", "The other side broke the call off.")
        self.answered = True
        return frame

    def _read(self, payload: bytes) -> Message:
        try:
            return read_message(payload)
        except FallowError:
            self._over = True
            raise

    def _failure(self, kind: FrameKind, payload: bytes) -> FallowError:
        if kind is FrameKind.FAIL:
            return read_failure(payload, trusted=self._trusted)
        return fail("E1102", f"a {kind.name} frame where an answer was due")

    def abort(self) -> None:
        """Give the call up; the other side stops working on it. Harmless at any time."""
        self._over = True
        self._framed.abort()
