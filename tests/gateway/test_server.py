"""The door's port, and how the server ends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.steward_stub import door
from tests.open_files import open_sockets

from fallow.errors import FallowError
from fallow.gateway import server as server_module
from fallow.gateway.server import claim_port, run_gateway
from fallow.sdk.home import socket_path


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_claimed_once(host: str) -> None:
    with claim_port(host, 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(FallowError) as taken:
            claim_port(host, port)
        assert taken.value.code == "E1804"
        assert str(port) in taken.value.what


def test_answers_are_not_held_back_by_the_kernel() -> None:
    """asyncio sets TCP_NODELAY on what is accepted only if the listener says that it is TCP."""
    with claim_port("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_is_free_again_after_its_connections_ended() -> None:
    with claim_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()  # the side that closes first keeps the address for a while
    claim_port("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_a_host_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(FallowError) as wrong:
        claim_port(host, 0)
    assert wrong.value.code == "E2001"


async def test_cancelling_ends_the_server_although_an_answer_is_under_way(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), httpx.AsyncClient(timeout=20) as http:
        steward.go_on.clear()
        body = {"model": "countdown", "prompt": "x", "stream": True}
        async with http.stream(
            "POST", f"{url}/completions", json=body, headers={"authorization": f"Bearer {key}"}
        ) as r:
            assert (await anext(r.aiter_lines())).startswith("data:")
            for task in asyncio.all_tasks():
                if task.get_coro().__name__ == "run_gateway":  # type: ignore[union-attr]
                    task.cancel()
                    async with asyncio.timeout(5):
                        await asyncio.wait({task})
                    assert task.cancelled()
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/models")


async def test_without_a_steward_the_door_says_so(tmp_path: Path) -> None:
    listener = claim_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        server = group.create_task(run_gateway(socket_path(tmp_path), listener))
        async with httpx.AsyncClient(timeout=10) as http:
            reply = await http.get(f"{url}/v1/models", headers={"authorization": "Bearer fk-x"})
            assert reply.status_code == 503
            assert reply.json()["error"]["fallow"]["code"] == "E2004"
            assert (await http.get(f"{url}/health")).json() == {"ok": True}
        server.cancel()


def test_a_client_that_does_not_read_keeps_no_socket_open_when_the_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flooded = asyncio.Event()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        asyncio.get_running_loop().call_soon(flooded.set)
        while True:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})

    async def serve_and_leave(client: socket.socket) -> None:
        listener = claim_port("127.0.0.1", 0)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            server = group.create_task(run_gateway(socket_path(tmp_path), listener))
            await asyncio.to_thread(client.connect, listener.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nhost: door\r\n\r\n")
            await flooded.wait()
            server.cancel()

    monkeypatch.setattr(server_module, "create_app", lambda *_: flood)
    before = open_sockets()
    with socket.socket() as client:
        asyncio.run(serve_and_leave(client))
        assert open_sockets() == before + 1
