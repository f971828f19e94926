"""The owner's door: who may open it, who finds it, and what a killed node leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.open_files import open_sockets

from fallow.errors import FallowError, UsageError, fail
from fallow.node import local_socket as local_socket_module
from fallow.node.local_socket import local_socket
from fallow.node.rpc import Caller, Router
from fallow.sdk.framed import HIGH_WATER_BYTES
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.wire.frames import encode_call
from fallow.wire.local import GetReceipt, ReceiptBytes
from fallow.wire.messages import CancelTask, LaneResult, LaneTask, Message, Ok, OpenLane

WORD = bytes(32)
NODE = """
import asyncio, sys
from pathlib import Path
from fallow.node.local_socket import local_socket
from fallow.node.rpc import Router

async def main():
    async with local_socket(Path(sys.argv[1]), Router()):
        print("up", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def echo_router() -> Router:
    router = Router()

    @router.on(CancelTask)
    async def _(caller: Caller, request: CancelTask) -> Message:
        match request.lease[0]:
            case 1:
                raise fail("E2003", "/home/me/data.txt does not exist.", cause="See /tmp.")
            case 2:
                raise RuntimeError("secret detail")
            case 3:
                await asyncio.sleep(60)
            case _:
                assert caller.node == b""
        return Ok()

    @router.stream(OpenLane)
    async def _(_caller: Caller, _request: OpenLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for task in inputs:
            assert isinstance(task, LaneTask)
            yield LaneResult(task.number, task.params, 1)

    return router


def ask(kind: int = 0) -> CancelTask:
    return CancelTask(bytes([kind]) * 32, WORD)


async def error_of(link: NodeSocket, kind: int, timeout_s: float = 5) -> FallowError:
    with pytest.raises(FallowError) as caught:
        await link.call(ask(kind), timeout_s)
    return caught.value


async def test_the_owner_calls_and_nobody_else_may(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with local_socket(home, echo_router()) as path:
        assert path == socket_path(home)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await NodeSocket(path).call(ask()) == Ok()
    assert not path.exists()
    assert (await error_of(NodeSocket(path), 0)).code == "E2004"


async def test_a_home_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    async with local_socket(tmp_path, Router()):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


async def test_the_owner_is_told_everything_but_bugs(tmp_path: Path) -> None:
    async with local_socket(tmp_path, echo_router()) as path:
        error = await error_of(NodeSocket(path), 1)
        assert isinstance(error, UsageError)
        assert (error.code, error.what, error.cause) == ("E2003", "/home/me/data.txt does not exist.", "See /tmp.")
        bug = await error_of(NodeSocket(path), 2)
        assert bug.code == "E9001"
        assert "secret" not in bug.five_lines()
        assert (await error_of(NodeSocket(path), 3, 0.05)).code == "E1802"


async def test_a_lane_goes_both_ways(tmp_path: Path) -> None:
    async with local_socket(tmp_path, echo_router()) as path, NodeSocket(path).open(OpenLane(WORD)) as lane:
        async with asyncio.TaskGroup() as group:

            async def send() -> None:
                for number in range(5000):
                    await lane.send(LaneTask(number, b"p" * 300))
                await lane.finish()

            group.create_task(send())
            got = [item.number async for item in lane if isinstance(item, LaneResult)]
        assert got == list(range(5000))


async def test_many_at_once(tmp_path: Path) -> None:
    async with local_socket(tmp_path, echo_router()) as path:
        assert await asyncio.gather(*(NodeSocket(path).call(ask()) for _ in range(200))) == [Ok()] * 200


async def test_too_many_at_once_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket_module, "MAX_CALLS", 1)
    async with local_socket(tmp_path, echo_router()) as path, NodeSocket(path).open(OpenLane(WORD)) as lane:
        await lane.send(LaneTask(1, b""))
        assert isinstance(await anext(aiter(lane)), LaneResult)
        assert (await error_of(NodeSocket(path), 0)).code == "E1803"


async def test_a_second_node_on_a_home_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with local_socket(tmp_path, echo_router()) as path:
        with pytest.raises(FallowError) as caught:
            async with local_socket(tmp_path, Router()):
                pass
        assert caught.value.code == "E1807"
        assert str(os.getpid()) in caught.value.what
        assert await NodeSocket(path).call(ask()) == Ok()
    async with local_socket(tmp_path, echo_router()) as path:
        assert await NodeSocket(path).call(ask()) == Ok()


def test_what_a_killed_node_leaves_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", NODE, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert socket_path(tmp_path).exists()

    async def again() -> Message:
        assert (await error_of(NodeSocket(socket_path(tmp_path)), 0)).code == "E2004"
        async with local_socket(tmp_path, echo_router()) as path:
            return await NodeSocket(path).call(ask())

    assert asyncio.run(again()) == Ok()


async def test_a_home_deeper_than_a_socket_path_may_be(tmp_path: Path) -> None:
    home = tmp_path.joinpath(*["a rather long folder name"] * 8)
    async with local_socket(home, echo_router()) as path:
        assert len(str(path)) > 200
        assert path.is_socket()
        assert await NodeSocket(path).call(ask()) == Ok()


@pytest.mark.parametrize("where", ["file", "file/below"])
async def test_a_home_that_is_no_folder_is_said_to_be_none(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FallowError) as caught:
        async with local_socket(tmp_path / where, Router()):
            pass
    assert caught.value.code == "E1004"


async def test_leaving_cancels_what_is_open_at_once(tmp_path: Path) -> None:
    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        async with local_socket(tmp_path, echo_router()) as path:
            waiting = group.create_task(error_of(NodeSocket(path), 3))
            lane = await asyncio.open_unix_connection(str(path))
            await asyncio.sleep(0.05)
        assert (await waiting).code == "E1801"
        lane[1].close()


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with local_socket(tmp_path, Router()):
            raise ZeroDivisionError


async def test_nonsense_on_the_socket_harms_nobody(tmp_path: Path) -> None:
    async with local_socket(tmp_path, echo_router()) as path:
        for nonsense in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000, b"\x00\x00\x00\x01\x00\x00"):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(path))
                raw.sendall(nonsense)
                raw.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.01)
        assert await NodeSocket(path).call(ask()) == Ok()


@pytest.mark.parametrize("turns", range(6))
def test_who_comes_as_the_door_closes_leaves_no_socket_behind(tmp_path: Path, turns: int) -> None:
    async def come_and_close() -> None:
        with socket.socket(socket.AF_UNIX) as caller:
            async with local_socket(tmp_path, echo_router()) as path:
                caller.connect(str(path))
                for _ in range(turns):
                    await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        before = open_sockets()
        asyncio.run(come_and_close())
        assert open_sockets() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("patience_s", [0.02, 60])
async def test_a_caller_that_does_not_read_its_answer_keeps_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(local_socket_module, "CLOSE_S", patience_s)
    router, answered = Router(), asyncio.Event()

    @router.on(GetReceipt)
    async def _(_caller: Caller, _request: GetReceipt) -> Message:
        answered.set()
        return ReceiptBytes(bytes(HIGH_WATER_BYTES))

    before = open_sockets()
    with socket.socket(socket.AF_UNIX) as caller:
        async with asyncio.timeout(5):
            async with local_socket(tmp_path, router) as path:
                caller.connect(str(path))
                caller.sendall(encode_call(1_000, GetReceipt(b"r")))
                await answered.wait()
            assert open_sockets() == before + 1
