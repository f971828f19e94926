"""The client's side of the owner's socket, where the node's side is played by hand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fallow.errors import FallowError
from fallow.sdk.link import NodeSocket, SocketStream, reachable
from fallow.wire.codec import encode
from fallow.wire.frames import FrameKind, FrameReader, encode_frame
from fallow.wire.messages import CancelTask, Failure, LaneResult, LaneTask, Ok, OpenLane

WORD = bytes(32)
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def played(path: Path, play: Play) -> AsyncGenerator[NodeSocket]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await play(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, str(path))
    async with server:
        yield NodeSocket(path)


def says(*frames: bytes) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"".join(frames))
        await writer.drain()

    return play


async def code_of(work: Awaitable[object]) -> str:
    with pytest.raises(FallowError) as caught:
        await work
    return caught.value.code


REQUEST = CancelTask(WORD, WORD)
REPLY = encode_frame(FrameKind.REPLY, encode(Ok()))


async def test_a_reply(tmp_path: Path) -> None:
    async with played(tmp_path / "s", says(REPLY)) as link:
        assert await link.call(REQUEST) == Ok()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((), "E1801"),
        ((REPLY[:-1],), "E1801"),
        ((encode_frame(FrameKind.REPLY, b"\xc1"),), "E1102"),
        ((encode_frame(FrameKind.CALL, encode(Ok())),), "E1102"),
        ((b"\xff" * 10,), "E1102"),
        ((encode_frame(FrameKind.FAIL, encode(Failure("E1301", "no"))),), "E1301"),
        ((encode_frame(FrameKind.FAIL, encode(Failure("E9001", "bug"))),), "E9001"),
        ((encode_frame(FrameKind.FAIL, encode(Failure("E7777", "new"))),), "E1806"),
    ],
)
async def test_other_answers(tmp_path: Path, frames: tuple[bytes, ...], code: str) -> None:
    async with played(tmp_path / "s", says(*frames)) as link:
        assert await code_of(link.call(REQUEST, 2)) == code


async def test_no_answer_is_late(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with played(tmp_path / "s", silent) as link:
        assert await code_of(link.call(REQUEST, 0.05)) == "E1802"


async def test_nobody_listens(tmp_path: Path) -> None:
    assert await code_of(NodeSocket(tmp_path / "none").call(REQUEST)) == "E2004"
    assert await code_of(NodeSocket(tmp_path / "no" / "folder").call(REQUEST)) == "E2004"
    assert await code_of(NodeSocket(tmp_path / ("x" * 120) / "s").call(REQUEST)) == "E2004"
    (tmp_path / "file").write_text("")
    assert await code_of(NodeSocket(tmp_path / "file").call(REQUEST)) == "E2004"
    assert await code_of(NodeSocket(tmp_path / "file" / "s").call(REQUEST)) == "E2004"


async def test_a_node_that_does_not_read_stops_the_sender(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def lazy(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await release.wait()

    sent = 0
    async with played(tmp_path / "s", lazy) as link, link.open(OpenLane(WORD)) as lane:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await lane.send(LaneTask(sent, bytes(10_000)))
                    sent += 1
        assert 10 < sent < 500
        release.set()


async def test_small_items_go_out_together(tmp_path: Path) -> None:
    pieces: list[int] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        seen = 0
        while seen < 1002:
            data = await reader.read(1 << 18)
            pieces.append(len(data))
            frames.feed(data)
            seen += len(list(frames))
        writer.write(encode_frame(FrameKind.ITEM, encode(LaneResult(1, b"", 0))) + encode_frame(FrameKind.END))

    async with played(tmp_path / "s", count) as link, link.open(OpenLane(WORD)) as lane:
        for number in range(1000):
            await lane.send(LaneTask(number, b"p"))
        await lane.finish()
        assert [item async for item in lane] == [LaneResult(1, b"", 0)]
    assert len(pieces) < 20


async def test_a_broken_socket_breaks_sending_too(tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=_pair(tmp_path))
    stream = SocketStream(reader, writer)
    stream.abort()
    assert await code_of(stream.send(b"x")) == "E1801"
    assert await code_of(stream.finish()) == "E1801"
    await asyncio.sleep(0)
    assert await stream.read(10) == b""


def _pair(_folder: Path):
    import socket

    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


async def test_long_paths_are_reached_by_way_of_their_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 150)
    deep.mkdir()
    async with reachable(deep / "s") as name:
        assert len(name) < 40
        Path(name).write_text("here")
    assert (deep / "s").read_text() == "here"
    async with reachable(tmp_path / "s") as name:
        assert name == str(tmp_path / "s")


def test_importing_the_link_is_light() -> None:
    heavy = "iroh httpx fastapi sqlalchemy torch structlog rich zeroconf cryptography coincurve"
    script = f"import sys, fallow.sdk.link; print([name for name in {heavy.split()!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
