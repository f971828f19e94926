"""Floods of connections: silent ones, slow ones, and as many as there are keys."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from tests.attacks.target import Strangers, answer_code, target, until
from tests.gateway.steward_stub import door

from fallow.adapters import iroh_transport
from fallow.adapters.iroh_transport import IrohTransport
from fallow.errors import FallowError
from fallow.gateway import bodies as bodies_module
from fallow.gateway import server as server_module
from fallow.node import held
from fallow.wire.messages import SearchOffers

Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(url: str, said: bytes = b"") -> Connected:
    host = httpx.URL(url)
    reader, writer = await asyncio.open_connection(host.host, host.port)
    writer.write(said)
    return reader, writer


def hang_up(connections: list[Connected]) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def over(connection: Connected) -> bool:
    """Whether the door has closed it; waits for that."""
    with suppress(OSError):
        while await connection[0].read(65536):
            pass
    connection[1].transport.abort()
    return True


async def test_silent_connections_leave_the_node_its_descriptors(tmp_path: Path) -> None:
    """400 TCP connections that say nothing, to a node with 256 descriptors that is gateway, bank, directory and steward
    in one process. Gained: 0; HTTP, the bank and new nodes are served meanwhile. Cost: 400 sockets of their own."""
    async with target(tmp_path, "--port", "0", files=256) as node, Strangers() as strangers:
        silent = [await connect(node.url) for _ in range(400)]
        async with httpx.AsyncClient(timeout=20) as http:
            assert (await http.get(node.url.replace("/v1", "/health"))).json() == {"ok": True}
        honest = await strangers.rpc(1)
        assert await answer_code(honest, node.address, SearchOffers("train")) == ""
        assert node.descriptors() < 200
        assert node.alive()
        hang_up(silent)


@pytest.mark.parametrize("said", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", b"x" * 70_000])
async def test_half_a_request_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Slowloris: headers that never end. Gained: one connection for HEADERS_S."""
    monkeypatch.setattr(server_module, "HEADERS_S", 0.05)
    async with door(tmp_path) as (_, url, _key):
        async with asyncio.timeout(20):
            assert await over(await connect(url, said))


async def test_the_longest_silent_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many silent connections as the door holds, from many addresses. Gained: 0; who comes with a question is let
    in, and the oldest silent one goes."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 5)
    async with door(tmp_path) as (_, url, key):
        silent = [await connect(url) for _ in range(5)]
        async with httpx.AsyncClient(timeout=20) as http:
            found = await http.get(f"{url}/models", headers={"authorization": f"Bearer {key}"})
            assert found.status_code == 200
        async with asyncio.timeout(20):
            assert await over(silent[0])
        hang_up(silent)


async def test_one_address_has_its_share_of_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address takes all connections it may, and one more. Gained: its share; the next is closed at once."""
    monkeypatch.setattr(server_module, "MAX_FROM_ADDRESS", 3)
    async with door(tmp_path) as (_, url, _key):
        kept = [await connect(url) for _ in range(3)]
        async with asyncio.timeout(20):
            assert await over(await connect(url))
        hang_up(kept)


async def test_slow_bodies_end_and_large_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that never end, and more of them than an address may have at once. Gained: BODY_S, and its share of bytes:
    E1904 and E1803, which is 429."""
    monkeypatch.setattr(bodies_module, "BODY_S", 0.1)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: %d\r\n\r\n"
    async with door(tmp_path) as (_, url, _key):
        reader, writer = await connect(url, head % 1000 + b"{")
        async with asyncio.timeout(20):
            assert b"E1904" in await reader.readuntil(b"}}}")
        writer.transport.abort()
    monkeypatch.setattr(bodies_module, "BODY_S", 30)
    monkeypatch.setattr(held.Held.__init__, "__defaults__", (100_000, 200_000))
    (tmp_path / "two").mkdir()
    async with door(tmp_path / "two") as (_, url, _key):
        slow = [await connect(url, head % 100_000 + bytes(60_000)) for _ in range(2)]
        async with asyncio.timeout(20):
            done, waiting = await asyncio.wait(
                [asyncio.ensure_future(reader.readuntil(b"}}}")) for reader, _ in slow],
                return_when=asyncio.FIRST_COMPLETED,
            )
        assert b"429" in (answer := done.pop().result())
        assert b"E1803" in answer
        for task in waiting:
            task.cancel()
        hang_up(slow)


async def test_without_a_key_no_model_is_told_from_another(tmp_path: Path) -> None:
    """Somebody without a key asks for models by name, and for too many tokens. Gained: 0; all answers are E1902."""
    async with door(tmp_path) as (_, url, _key), httpx.AsyncClient(timeout=20) as http:
        wrong = {"authorization": "Bearer fk-wrong"}
        answers = [(await http.get(f"{url}/models", headers=wrong)).json()]
        for name, most in (("countdown", 5), ("countdown", 5_000), ("secret", 5)):
            body = {"model": name, "prompt": "x", "max_tokens": most}
            answers.append((await http.post(f"{url}/completions", json=body, headers=wrong)).json())
        assert {answer["error"]["fallow"]["code"] for answer in answers} == {"E1902"}
        assert "countdown" not in str(answers)
        assert (await http.get(url.replace("/v1", "/health"))).json() == {"ok": True}


async def test_keys_without_number_share_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection with a key of its own, from one machine. Gained: that address's share of connections."""
    monkeypatch.setattr(iroh_transport, "MAX_FROM_ADDRESS", 3)
    async with Strangers() as strangers:
        node = await IrohTransport.bind(bytes(31) + b"n")
        refused = 0
        for number in range(5):
            try:
                await (await strangers.transport(number)).connect(node.address(), 3.0)
            except FallowError as error:
                assert error.code == "E1801"  # noqa: PT017
                refused += 1
            await until(lambda seen=number: len(node._connections) >= min(seen + 1, 3))
        assert refused == 2
        await node.close()


async def test_what_is_taken_unread_has_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many connections fills its window of what nobody reads. Gained: UNREAD_BYTES in all, and 64 KiB for each
    connection beyond."""
    monkeypatch.setattr(iroh_transport, "UNREAD_BYTES", 1 << 20)
    monkeypatch.setattr(iroh_transport, "UNREAD_PART", 2)
    async with Strangers() as strangers:
        node = await IrohTransport.bind(bytes(31) + b"m")
        for number in range(8):
            await strangers.dial(number, node.address())
        await until(lambda: len(node._connections) == 8)
        windows = sorted((one.unread_bytes for one in node._connections), reverse=True)
        assert windows[:4] == [1 << 19, 1 << 18, 1 << 17, 1 << 16]
        assert set(windows[4:]) == {iroh_transport.LEAST_UNREAD_BYTES}
        await node.close()
