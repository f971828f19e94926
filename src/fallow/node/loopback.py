"""A node's calls to itself: one process may be steward, bank and directory at once, and no transport dials its own key.
Each stream is a socket pair, so that a call to oneself behaves like any other, back-pressure included."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fallow.ports import Connection, Stream
from fallow.sdk.link import SocketStream
from fallow.units import NodeId

Serve = Callable[[Connection, Stream], Coroutine[Any, Any, None]]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Loopback:
    """`ports.Connection` to this node itself; `serve` answers each stream in a task that `spawn` starts."""

    def __init__(self, node: NodeId, serve: Serve, spawn: Spawn) -> None:
        self._node, self._serve, self._spawn = node, serve, spawn

    @property
    def peer(self) -> NodeId:
        return self._node

    async def open(self) -> Stream:
        ours, theirs = socket.socketpair()
        near = SocketStream(*await asyncio.open_unix_connection(sock=ours))
        far = SocketStream(*await asyncio.open_unix_connection(sock=theirs))
        self._spawn(self._answer(far))
        return near

    async def _answer(self, stream: SocketStream) -> None:
        try:
            await self._serve(self, stream)
        finally:
            await stream.close()

    async def accepted(self) -> AsyncIterator[Stream]:
        """Nothing: what this node opens, `open` has handed to the server already."""
        for stream in list[Stream]():
            yield stream

    async def close(self) -> None:
        """Nothing stays open between streams."""
