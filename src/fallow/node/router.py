"""The answering half of a call: which request goes to which handler, and what a peer may cost us.

Defends against: peers that open calls and say nothing (`FIRST_FRAME_S`), never read (flow control, deadlines), ask for
too much at once (`Limits`), send most of large messages (`node/held.py`), or what is no request; and against telling
peers our paths or tracebacks. Does not defend against: many keys acting together below their limits.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, Union, cast

import structlog

from fallow.errors import FallowError, InternalError, fail
from fallow.sdk.calls import NO_DEADLINE_MS
from fallow.sdk.framed import ByteStream, FramedStream, OnHeld, read_message
from fallow.units import MS_PER_S, NodeId
from fallow.wire.codec import decode, encode
from fallow.wire.frames import MAX_FRAME_BYTES, FrameKind, encode_frame, split_call
from fallow.wire.messages import Failure, Message

log = structlog.get_logger()

R = TypeVar("R", bound=Message)

OWNER = NodeId(b"")
"""Who calls over the Unix socket."""
FIRST_FRAME_S = 10.0
FAREWELL_S = 5.0
MAX_TIMEOUT_S = 3600.0
_PATH = re.compile(r"(?<![\w/.:])~?/[^\s:'\"]+")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `node` has proved that it holds its key; b"" is the owner on this machine."""

    node: NodeId


@dataclass(frozen=True)
class Limits:
    """What all peers together, and each of them, may have open at once; more are told E1803. `input_bytes` is the
    largest frame that a caller may send."""

    calls_per_peer: int = 256
    calls: int = 4096
    connections_per_peer: int = 8
    connections: int = 2048
    input_bytes: int = MAX_FRAME_BYTES


Unary = Callable[[Caller, R], Awaitable[Message]]
Streaming = Callable[[Caller, R, AsyncIterator[Message]], AsyncIterator[Message | bytes]]


class Router:
    """Handlers by request type."""

    def __init__(self) -> None:
        self._unary: dict[type[Message], Unary[Any]] = {}
        self._streaming: dict[type[Message], Streaming[Any]] = {}
        self._union: object = None

    def on(self, request: type[R]) -> Callable[[Unary[R]], Unary[R]]:
        """Answer `request` with one message: `async def handler(caller, request) -> Message`. The handler is cancelled
        at the caller's deadline, and must bear that at any await. A FallowError that it raises goes to the caller;
        anything else is logged here and the caller is told E9001."""

        def register(handler: Unary[R]) -> Unary[R]:
            self._claim(request)
            self._unary[request] = handler
            return handler

        return register

    def stream(self, request: type[R]) -> Callable[[Streaming[R]], Streaming[R]]:
        """Answer `request` with a stream: an async generator `handler(caller, request, inputs)` that yields messages
        and raw bytes (best in pieces of 64 to 256 KiB). It waits at `yield` while the caller reads slowly, and is
        closed when the caller goes away; while it leaves input unread, when it next yields. `inputs` are the messages
        that the caller sends."""

        def register(handler: Streaming[R]) -> Streaming[R]:
            self._claim(request)
            self._streaming[request] = handler
            return handler

        return register

    def include(self, other: Router) -> None:
        """Take over the handlers of `other`."""
        for kind, handler in other._unary.items():
            self.on(kind)(handler)
        for kind, streaming in other._streaming.items():
            self.stream(kind)(streaming)

    def _claim(self, request: type[Message]) -> None:
        assert self.handlers(request) == (None, None), f"two handlers for {request.__name__}"
        self._union = None

    def read(self, payload: bytes) -> Message:
        """A request that somebody here answers. Raises PeerFault E1102."""
        if self._union is None:
            kinds = (*self._unary, *self._streaming)
            if not kinds:
                raise fail("E1102", "a request to a node that answers none")
            self._union = Union[kinds]  # noqa: UP007 - built from a tuple
        return decode(self._union, payload)

    def handlers(self, kind: type[Message]) -> tuple[Unary[Any] | None, Streaming[Any] | None]:
        """The handler of a kind of request, in the place of what it is."""
        return self._unary.get(kind), self._streaming.get(kind)


async def answer(
    router: Router, caller: Caller, stream: ByteStream, limits: Limits, hold: OnHeld | None = None
) -> None:
    """Serve the one call on `stream`, to its end. Never raises, but for cancellation, which aborts the stream. `hold`
    counts what a stranger makes us hold for it."""
    call = _Call(router, caller, stream, limits, hold)
    try:
        failure = await call.run()
        if failure is None:
            return
        # not reading on would leave the caller stuck in its own sends; it hears of the failure first
        async with asyncio.timeout(FAREWELL_S):
            await stream.send(encode_frame(FrameKind.FAIL, encode(failure)))
            await stream.finish()
        if hold is not None:
            stream.abort()  # what else a stranger sends is not wanted
    except (FallowError, TimeoutError):
        stream.abort()  # the caller is gone, or does not read
    except asyncio.CancelledError:
        stream.abort()
        raise


async def refuse(stream: ByteStream) -> None:
    """Tell a caller that it has too much open already."""
    failure = Failure("E1803", "Too many calls at once.")
    try:
        async with asyncio.timeout(FAREWELL_S):
            await stream.send(encode_frame(FrameKind.FAIL, encode(failure)))
            await stream.finish()
    except (FallowError, TimeoutError):
        stream.abort()


class _Call:
    """One call while it is answered."""

    def __init__(self, router: Router, caller: Caller, stream: ByteStream, limits: Limits, hold: OnHeld | None) -> None:
        self._router, self._caller, self._stream = router, caller, stream
        self._limits, self._hold = limits, hold
        self._name = "call"

    async def run(self) -> Failure | None:
        """-> what to tell the caller, or None when it has its answer. Raises E1801 when the caller is gone."""
        framed = FramedStream(self._stream, None, self._limits.input_bytes, self._hold)
        deadline: asyncio.Timeout | None = None
        try:
            async with asyncio.timeout(FIRST_FRAME_S) as deadline:
                timeout_ms, request = await self._request(framed)
            async with asyncio.timeout(_seconds(timeout_ms)) as deadline:
                return await self._handle(request, framed)
        except TimeoutError as error:
            if deadline is not None and deadline.expired():
                return Failure("E1802", f"{self._name} was not done in time.")
            return self._unknown(error)
        except _CallerGone as gone:
            raise gone.error from None
        except FallowError as error:
            return self._told(error)
        except Exception as error:  # noqa: BLE001 - the boundary of the call's task: a handler's bug ends its call only
            return self._unknown(error)

    async def _request(self, framed: FramedStream) -> tuple[int, Message]:
        try:
            frame = await framed.next()
        except FallowError as error:
            if error.code == "E1801":
                raise _CallerGone(error) from None
            raise
        if frame is None or frame[0] is not FrameKind.CALL:
            raise fail("E1102", "a stream that does not begin with a call")
        timeout_ms, payload = split_call(frame[1])
        request = self._router.read(payload)
        self._name = type(request).__name__
        return timeout_ms, request

    async def _handle(self, request: Message, framed: FramedStream) -> Failure | None:
        unary, streaming = self._router.handlers(type(request))
        if unary is not None:
            reply = await unary(self._caller, request)
            await self._last(encode_frame(FrameKind.REPLY, encode(reply)))
            return None
        assert streaming is not None
        return await self._run_stream(streaming, request, framed)

    async def _last(self, frame: bytes) -> None:
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a reply of {len(frame)} bytes")
        try:
            await self._stream.send(frame)
            await self._stream.finish()
        except FallowError as error:
            raise _CallerGone(error) from None

    async def _run_stream(self, handler: Streaming[Any], request: Message, framed: FramedStream) -> Failure | None:
        async with asyncio.TaskGroup() as group:
            # the owner's socket collects what is written by itself
            out = FramedStream(self._stream, None if self._caller.node == OWNER else group.create_task)
            inputs = Inputs(framed)
            producer = group.create_task(self._produce(handler(self._caller, request, inputs), out))
            pump = group.create_task(inputs.pump(producer.cancel))
            await asyncio.wait({producer})
            pump.cancel()
            refused = producer.cancelled() and out.idle and inputs.error is not None and inputs.error.code != "E1801"
            if producer.cancelled() and not refused:
                self._stream.abort()  # wakes the writer, which may be waiting for a reader that left
        if refused and inputs.error is not None:
            return self._told(inputs.error)
        if producer.cancelled():
            raise _CallerGone(inputs.error or fail("E1801", "The caller is gone."))
        return producer.result()

    async def _produce(self, items: AsyncIterator[Message | bytes], out: FramedStream) -> Failure | None:
        """Never raises but for cancellation, which is how the other tasks end it."""
        try:
            async with aclosing(cast(Any, items)):
                async for item in items:
                    await out.put_item(item, FrameKind.ITEM)
            await out.close_with(encode_frame(FrameKind.END))
        except FallowError as error:
            return await self._after(out, self._told(error))
        except Exception as error:  # noqa: BLE001 - the boundary of the call's task: a handler's bug ends its call only
            return await self._after(out, self._unknown(error))
        return None

    async def _after(self, out: FramedStream, failure: Failure) -> Failure:
        """A failure comes after the items that were yielded before it. If they cannot be written, neither can it."""
        with suppress(FallowError):
            await out.flush()
        return failure

    def _told(self, error: FallowError) -> Failure:
        if isinstance(error, InternalError):
            return self._unknown(error)
        log.debug(
            "call refused", call=self._name, caller=self._caller.node.hex()[:12], code=error.code, what=error.what
        )
        return to_failure(error, self._caller)

    def _unknown(self, error: Exception) -> Failure:
        log.error("call failed", call=self._name, caller=self._caller.node.hex()[:12], exc_info=error)
        what = f"{self._name} failed on this node for a reason that is in its log."
        return Failure("E9001", what)


class _CallerGone(Exception):
    """The caller's stream broke, as opposed to whatever broke inside a handler."""

    def __init__(self, error: FallowError) -> None:
        super().__init__(error.what)
        self.error = error


class Inputs:
    """The messages that a caller sends, as its handler sees them. One piece is read ahead and no more, so a handler
    that does not read stops the caller. Iterating raises PeerFault E1102 for what is no message."""

    def __init__(self, framed: FramedStream) -> None:
        self._framed = framed
        self._frames: deque[bytes] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        self.error: FallowError | None = None

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while not self._frames:
            if self.error is not None:
                raise self.error
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        payload = self._frames.popleft()
        if not self._frames:
            self._changed.set()
        return read_message(payload)

    async def pump(self, gone: Callable[[], object]) -> None:
        """Read until the caller's stream ends, which callers let it do only when they leave; then call `gone`. So too
        when it talks nonsense."""
        try:
            while await self._take():
                while self._frames and not self._framed.waiting:
                    self._changed.clear()
                    await self._changed.wait()
            self._ended = True
            self._changed.set()
            await self._framed.next()
            self.error = fail("E1801", "The caller left.")
        except FallowError as error:
            self.error = error
        self._changed.set()
        gone()

    async def _take(self) -> bool:
        frame = await self._framed.next()
        if frame is None:
            raise fail("E1801", "The caller broke the call off.")
        kind, payload = frame
        if kind is FrameKind.END:
            return False
        if kind is not FrameKind.INPUT:
            raise fail("E1102", f"a {kind.name} frame where an input was due")
        self._frames.append(payload)
        self._changed.set()
        return True


def to_failure(error: FallowError, caller: Caller) -> Failure:
    """What a caller may know of an error. Paths of this machine are for its owner only."""
    if caller.node == OWNER:
        texts = (error.what, error.cause, error.money, error.next_step)
    else:
        texts = tuple(_PATH.sub("(a path)", text) for text in (error.what, error.cause, error.money, error.next_step))
    return Failure(error.code, *(text[:4000] for text in texts))


def _seconds(timeout_ms: int) -> float | None:
    """A caller's duration as ours: nobody holds a handler for longer than `MAX_TIMEOUT_S`, but for streams that say
    that they have no deadline."""
    return None if timeout_ms >= NO_DEADLINE_MS else min(timeout_ms / MS_PER_S, MAX_TIMEOUT_S)
