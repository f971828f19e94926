"""The owner's programs talk to their node over a Unix socket: one connection per call, framed as between nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fallow.errors import FallowError, fail
from fallow.sdk.calls import NO_DEADLINE_MS, CallStream
from fallow.sdk.framed import HIGH_WATER_BYTES
from fallow.wire.messages import Message

LinkStream = CallStream

MAX_SOCKET_PATH_BYTES: Final = 100
"""A Unix socket's path holds 108 bytes on Linux and 104 elsewhere, with a zero at the end."""
_READ_AHEAD_BYTES = 1 << 19


def _broken() -> FallowError:
    return fail("E1801", "The connection to the node on this machine broke.", next_step="fallow doctor")


class SocketStream:
    """`sdk.framed.ByteStream` over a connected stream socket. Writes of one round of the event loop go out as one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._collected: list[bytes] = []
        self._size = 0

    async def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise _broken()
        if not self._collected:
            asyncio.get_running_loop().call_soon(self._write_out)
        self._collected.append(data)
        self._size += len(data)
        if self._size + self._writer.transport.get_write_buffer_size() > HIGH_WATER_BYTES:
            self._write_out()
            try:
                await self._writer.drain()
            except OSError:
                raise _broken() from None

    def _write_out(self) -> None:
        if self._collected and not self._writer.is_closing():
            self._writer.write(b"".join(self._collected))
        self._collected.clear()
        self._size = 0

    async def finish(self) -> None:
        self._write_out()
        if self._writer.is_closing():
            raise _broken()
        try:
            self._writer.write_eof()
            await self._writer.drain()
        except OSError:
            raise _broken() from None

    async def read(self, limit: int) -> bytes:
        try:
            return await self._reader.read(limit)
        except OSError:
            raise _broken() from None

    def abort(self) -> None:
        self._collected.clear()
        self._writer.transport.abort()

    async def close(self) -> None:
        """Let what was sent reach the other side, then let go."""
        self._write_out()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def reachable(path: Path) -> AsyncGenerator[str]:
    """A name for `path` that is short enough for the kernel, whatever the depth of its folder: that goes through a file
    descriptor of the folder, so nothing is written anywhere and no working directory changes. The folder must exist."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class NodeSocket:
    """The socket at `path`. Cheap: nothing stays open between calls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def call(self, request: Message, timeout_s: float = 30.0) -> Message:
        """One request, one reply. Raises the node's FallowError, UsageError E2004 when no node runs there,
        UnavailableError E1801 when it goes away and E1802 when it is slow."""
        try:
            async with asyncio.timeout(timeout_s), self._connected() as stream:
                await stream.start(request, int(timeout_s * 1000))
                return await stream.reply()
        except TimeoutError:
            raise fail("E1802", f"The node did not answer {type(request).__name__} within {timeout_s:g} s.") from None

    @asynccontextmanager
    async def open(self, request: Message) -> AsyncGenerator[LinkStream]:
        """A call that streams; leaving the block ends it. Raises as `call` does, without a time limit."""
        async with self._connected() as stream:
            await stream.start(request, NO_DEADLINE_MS)
            yield stream

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[CallStream]:
        try:
            async with reachable(self._path) as name:
                reader, writer = await asyncio.open_unix_connection(name, limit=_READ_AHEAD_BYTES)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise fail("E2004", f"No node is running in {self._path.parent}.") from None
        except PermissionError:
            raise fail("E1004", f"{self._path} belongs to somebody else.") from None
        except OSError as error:
            raise fail("E2004", f"The node in {self._path.parent} cannot be reached: {error.strerror}.") from None
        stream = CallStream(SocketStream(reader, writer), None, trusted=True)
        try:
            yield stream
        finally:
            stream.abort()
