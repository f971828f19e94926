"""A node's calls to itself: one process may be steward, bank and directory at once, and no transport dials its own key.
Each stream is a pair of pipes in memory, bounded, so that a call to oneself behaves like any other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fallow.errors import fail
from fallow.ports import Connection, Stream
from fallow.sdk.framed import Spawn
from fallow.units import NodeId

Serve = Callable[[Connection, Stream], Coroutine[Any, Any, None]]

WINDOW_BYTES = 1 << 18
"""How much one direction of a stream holds before the writer waits."""


class Pipe:
    """One direction of a stream: a bounded buffer of bytes with a reader and a writer that wait for each other."""

    def __init__(self) -> None:
        self.on_over: Callable[[], None] = lambda: None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._finished = False
        self.broken = False
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Nothing will come out any more."""
        return self.broken or (self._finished and not self._pieces)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        if self.over:
            self.on_over()

    async def write(self, data: bytes) -> bool:
        """Bytes go in as room appears; -> False when the pipe broke."""
        view = memoryview(data)
        while len(view) and not self.broken:
            room = WINDOW_BYTES - self._size
            if room <= 0:
                await self._changed.wait()
                continue
            self._pieces.append(bytes(view[:room]))
            self._size += len(self._pieces[-1])
            view = view[room:]
            self._wake()
        return not self.broken

    async def read(self, limit: int) -> bytes | None:
        """-> b"" at the end, None when the pipe broke: what had not been read by then is lost."""
        while not self.broken and not self._pieces:
            if self._finished:
                return b""
            await self._changed.wait()
        if self.broken:
            return None
        piece = self._pieces.popleft()
        if len(piece) > limit:
            self._pieces.appendleft(piece[limit:])
            piece = piece[:limit]
        self._size -= len(piece)
        self._wake()
        return piece

    def finish(self) -> None:
        """No more bytes come."""
        self._finished = True
        self._wake()

    def give_up(self) -> None:
        """The writer writes no more: what it finished still arrives, anything else is lost."""
        if not self._finished:
            self.break_()

    def break_(self) -> None:
        """It is gone, with what is in it."""
        self.broken = True
        self._pieces.clear()
        self._wake()


class _Stream:
    """`ports.Stream` over two pipes."""

    def __init__(self, outgoing: Pipe, incoming: Pipe) -> None:
        self._out, self._in = outgoing, incoming

    async def send(self, data: bytes) -> None:
        if not await self._out.write(data):
            raise fail("E1801", "The stream is gone.")

    async def finish(self) -> None:
        self._out.finish()

    async def read(self, limit: int) -> bytes:
        return await self._in.read(limit) or b""

    def abort(self) -> None:
        self._out.give_up()
        self._in.break_()


class Loopback:
    """`ports.Connection` to this node itself; `serve` answers each stream in a task that `spawn` starts."""

    def __init__(self, node: NodeId, serve: Serve, spawn: Spawn) -> None:
        self._node, self._serve, self._spawn = node, serve, spawn

    @property
    def peer(self) -> NodeId:
        return self._node

    async def open(self) -> Stream:
        there, back = Pipe(), Pipe()
        self._spawn(self._serve(self, _Stream(back, there)))
        return _Stream(there, back)

    async def accepted(self) -> AsyncIterator[Stream]:
        """Nothing: what this node opens, `open` has handed to the server already."""
        for stream in list[Stream]():
            yield stream

    async def close(self) -> None:
        """Nothing stays open between streams."""
