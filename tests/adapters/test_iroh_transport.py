"""What is particular to iroh; what every transport promises is in tests/contracts/test_transport.py."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from fallow.adapters import iroh_transport
from fallow.adapters.iroh_transport import IrohTransport
from fallow.errors import FallowError
from fallow.wire.messages import NodeAddress

SERVER = """
import asyncio, sys
from fallow.adapters.iroh_transport import IrohTransport

async def main():
    transport = await IrohTransport.bind(b"s" * 32, sys.argv[1])
    print(transport.address().direct[0], flush=True)
    async for connection in transport.accepted():
        async for stream in connection.accepted():
            await stream.send(await stream.read(100))

asyncio.run(main())
"""


@pytest.fixture
async def transport() -> AsyncIterator[IrohTransport]:
    made = await IrohTransport.bind(b"c" * 32)
    yield made
    await made.close()


def start(bind: str) -> tuple[subprocess.Popen[bytes], str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, bind], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, process.stdout.readline().decode().strip()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def ed25519_public(seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def test_the_node_id_is_the_public_key_of_the_seed() -> None:
    async def main() -> bytes:
        transport = await IrohTransport.bind(b"s" * 32)
        await transport.close()
        return transport.node

    assert asyncio.run(main()) == ed25519_public(b"s" * 32)
    assert asyncio.run(main()) == ed25519_public(b"s" * 32)  # and a second event loop is no trouble


async def test_a_taken_port_is_said_to_be_taken(transport: IrohTransport) -> None:
    with pytest.raises(FallowError) as caught:
        await IrohTransport.bind(b"d" * 32, transport.address().direct[0])
    assert caught.value.code == "E1804"


async def test_a_relay_that_does_not_answer_keeps_nobody_from_dialling_directly() -> None:
    """What can be tried without a relay: its URL is part of the address, and the direct way goes on working."""
    relay = "http://127.0.0.1:9/"
    async with asyncio.timeout(30):
        there = await IrohTransport.bind(b"r" * 32, "127.0.0.1:0", relay)
        here = await IrohTransport.bind(b"s" * 32)
        assert there.address().relay == relay
        connection = await here.connect(there.address(), 20)
        assert connection.peer == there.address().node
        await connection.close()
        await here.close()
        await there.close()


@pytest.mark.parametrize(
    ("bind", "relay"),
    [("nonsense", ""), ("8.8.8.8:0", ""), ("127.0.0.1:99999", ""), ("127.0.0.1:0", "no url"), ("", "")],
)
async def test_what_cannot_be_bound_is_a_usage_error(bind: str, relay: str) -> None:
    with pytest.raises(FallowError) as caught:
        await IrohTransport.bind(b"d" * 32, bind, relay)
    assert caught.value.code == "E1805"


async def test_an_address_can_be_dialled_on_every_interface() -> None:
    transport = await IrohTransport.bind(b"e" * 32, "0.0.0.0:0")
    caller = await IrohTransport.bind(b"f" * 32, "0.0.0.0:0")
    try:
        assert transport.address().direct
        connection = await caller.connect(transport.address(), 5)
        assert connection.peer == transport.node
    finally:
        await caller.close()
        await transport.close()


async def test_closing_twice_is_harmless(transport: IrohTransport) -> None:
    await transport.close()
    await transport.close()


async def test_a_flood_of_connections_is_refused_and_not_kept(
    transport: IrohTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iroh_transport, "MAX_WAITING", 3)
    callers = [await IrohTransport.bind(bytes([n]) * 32) for n in range(1, 9)]
    try:
        dials = [caller.connect(transport.address(), 2) for caller in callers]
        results = await asyncio.gather(*dials, return_exceptions=True)
        refused = [result for result in results if isinstance(result, FallowError)]
        assert refused
        assert {error.code for error in refused} == {"E1801"}
    finally:
        for caller in callers:
            await caller.close()


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_killed_peer_is_noticed_within_seconds(transport: IrohTransport, comes_back: bool) -> None:
    """QUIC alone takes more than 30 s, and longer calls would wait for all of it."""
    process, place = start("127.0.0.1:0")
    node = ed25519_public(b"s" * 32)
    try:
        connection = await transport.connect(NodeAddress(node=node, direct=(place,)), 5)
        stream = await connection.open()
        await stream.send(b"hello")
        assert await stream.read(100) == b"hello"
        process.send_signal(signal.SIGKILL)
        stop(process)
        if comes_back:  # at the same place, with the same key, but knowing nothing of the connection
            process, _ = start(place)
        async with asyncio.timeout(10):
            with pytest.raises(FallowError) as caught:
                await stream.read(100)
        assert caught.value.code == "E1801"
        if comes_back:
            again = await (await transport.connect(NodeAddress(node=node, direct=(place,)), 5)).open()
            await again.send(b"again")
            assert await again.read(100) == b"again"
    finally:
        stop(process)


async def test_a_quiet_but_living_peer_is_not_given_up(
    transport: IrohTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose Python is stuck still acknowledges: its QUIC stack runs on other threads."""
    monkeypatch.setattr(iroh_transport, "TICK_S", 0.02)
    impatient = await IrohTransport.bind(b"g" * 32)
    try:
        connection = await impatient.connect(transport.address(), 5)
        async for accepted in transport.accepted():
            stream = await connection.open()
            await asyncio.sleep(1)  # 50 ticks
            await stream.send(b"x")
            async for other in accepted.accepted():
                assert await other.read(1) == b"x"
                return
    finally:
        await impatient.close()
