"""One 256 MiB file from one process to another over loopback, and into a file there. Side by side, round by round:

- a plain TCP socket, - a raw iroh stream, with the repaired Python binding and the piece size that suits it best, -
py-libp2p (TCP, Noise, Yamux), when the Python named by `FALLOW_BENCH_LIBP2P_PYTHON` or this one has it, -
`Fetcher.fetch`: chunk hashes checked when read, checked again when received, written, synced and entered in the index;
on a link as fast as this one it takes two streams.

The others neither check nor sync. The source lies in the page cache. Peers take turns, so that whatever else the
machine does hits all of them; before each turn the disk takes what the one before left to it, which else falls on who
waits for the disk. The first round warms up and is not counted, but its bytes are compared.

    python benchmarks/blobs.py [--rounds N] [--mib N]

Prints one JSON line per peer (median MB/s, MB = 10^6 bytes) and writes every round to `benchmarks/results/blobs.json`.
"""

# ruff: noqa: ASYNC230 - while a peer reads or writes its file, its event loop has nothing else to do
from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from _record import OURS, Figure, Record, peer_python

CLAIM = "a verified download of 256 MiB keeps 80 % of a raw iroh stream's speed"
PIECE = 1 << 20
IROH_PIECE = 1 << 18
GOAL = 0.8
"""The share of a raw iroh stream's speed that a fetch should reach."""


async def each_round(receive: Callable[[], Awaitable[None]]) -> None:
    """In a receiver: for every line on stdin receive the file once and say how many seconds that took."""
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        began = time.perf_counter()
        await receive()
        print(time.perf_counter() - began, flush=True)


# a TCP socket ---------------------------------------------------------------------------------------------------------


def serve_tcp(source: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps(listener.getsockname()[1]), flush=True)
    while True:
        connection, _ = listener.accept()
        with connection, open(source, "rb") as file:
            while piece := file.read(PIECE):
                connection.sendall(piece)


def receive_tcp(port: int, copy: Path) -> None:
    buffer = bytearray(PIECE)

    async def receive() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection, open(copy, "wb") as file:
            while count := connection.recv_into(buffer):
                file.write(memoryview(buffer)[:count])

    asyncio.run(each_round(receive))


# a raw iroh stream ----------------------------------------------------------------------------------------------------


async def iroh_endpoint() -> Any:
    import iroh

    from fallow.adapters.iroh_memmove import repair

    repair()
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())  # pyright: ignore[reportArgumentType]
    relays = iroh.RelayMode.disabled()
    return await iroh.Endpoint.bind(iroh.EndpointOptions(bind_addr="127.0.0.1:0", alpns=[b"bench"], relay_mode=relays))


async def serve_iroh(source: Path) -> None:
    endpoint = await iroh_endpoint()
    print(json.dumps([str(endpoint.id()), endpoint.bound_sockets()]), flush=True)
    connection = await (await (await endpoint.accept_next()).accept()).connect()
    while True:
        stream = await connection.accept_bi()
        await stream.recv().read(1)
        with open(source, "rb") as file:
            while piece := file.read(IROH_PIECE):
                await stream.send().write_all(piece)
        await stream.send().finish()


async def receive_iroh(address: list[Any], copy: Path) -> None:
    import iroh

    endpoint = await iroh_endpoint()
    there = iroh.EndpointAddr(iroh.EndpointId.from_string(address[0]), None, address[1])
    connection = await endpoint.connect(there, b"bench")

    async def receive() -> None:
        stream = await connection.open_bi()
        await stream.send().write_all(b"?")
        with open(copy, "wb") as file:
            while piece := await stream.recv().read(IROH_PIECE):
                file.write(piece)

    await each_round(receive)


# py-libp2p ------------------------------------------------------------------------------------------------------------


def libp2p_host() -> Any:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair

    return new_host(key_pair=create_new_key_pair())


def serve_libp2p(source: Path) -> None:
    import trio
    from multiaddr import Multiaddr

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        host, here = libp2p_host(), Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")

        async def handler(stream: Any) -> None:
            await stream.read(1)
            with open(source, "rb") as file:
                while piece := file.read(PIECE):
                    await stream.write(piece)
            await stream.close()

        async with host.run(listen_addrs=[here]):
            host.set_stream_handler("/bench/1", handler)
            print(json.dumps(f"{here}/p2p/{host.get_id()}"), flush=True)
            await trio.sleep_forever()

    trio.run(run)


def receive_libp2p(address: str, copy: Path, size_bytes: int) -> None:
    import trio
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    async def run() -> None:
        host = libp2p_host()
        async with host.run(listen_addrs=[]):
            info = info_from_p2p_addr(Multiaddr(address))
            await host.connect(info)
            while await trio.to_thread.run_sync(sys.stdin.readline):
                began = time.perf_counter()
                stream = await host.new_stream(info.peer_id, ["/bench/1"])
                await stream.write(b"?")
                left = size_bytes
                with open(copy, "wb") as file:
                    while left and (piece := await stream.read(min(left, PIECE))):
                        file.write(piece)
                        left -= len(piece)
                print(time.perf_counter() - began, flush=True)

    trio.run(run)


# Fallow ---------------------------------------------------------------------------------------------------------------


async def serve_fallow(source: Path) -> None:
    from fallow.adapters.blobs_disk import DiskBlobs
    from fallow.adapters.iroh_transport import IrohTransport
    from fallow.node.blobs import serve_blobs
    from fallow.node.rpc import Router, serve

    store, router = DiskBlobs(source.parent / "served", 1 << 40), Router()
    blob = store.put_file(source)
    serve_blobs(router, store)
    transport = await IrohTransport.bind(b"s" * 32)
    here = transport.address()
    print(json.dumps([here.node.hex(), here.direct, blob.hex()]), flush=True)
    await serve(transport, router)


async def receive_fallow(address: list[Any], copy: Path) -> None:
    from fallow.adapters.blobs_disk import DiskBlobs
    from fallow.adapters.iroh_transport import IrohTransport
    from fallow.node.blobs import Fetcher
    from fallow.node.rpc import Rpc
    from fallow.units import BlobId
    from fallow.wire.messages import NodeAddress

    node, direct, blob_text = address
    blob, source = BlobId(bytes.fromhex(blob_text)), NodeAddress(bytes.fromhex(node), tuple(direct))
    folder = copy.parent / "fetched"
    stores: list[DiskBlobs] = []

    async with Rpc(await IrohTransport.bind(b"c" * 32)) as rpc:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            for old in stores:
                old.close()
            shutil.rmtree(folder, ignore_errors=True)
            stores.append(DiskBlobs(folder, 1 << 40))
            began = time.perf_counter()
            await Fetcher(rpc, stores[-1]).fetch(blob, [source])
            seconds = time.perf_counter() - began
            os.link(stores[-1].path(blob), copy)
            print(seconds, flush=True)


# the race -------------------------------------------------------------------------------------------------------------


class Peer:
    """A serving and a receiving process, and what the rounds took."""

    def __init__(self, name: str, what: str, version: str, python: str = sys.executable) -> None:
        self.name, self.what, self.version, self._python = name, what, version, python
        self.seconds: list[float] = []
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, folder: Path, size_bytes: int) -> None:
        self.copy = folder / f"{self.name}.copy"
        server = self._spawn("serve", folder / "source")
        assert server.stdout is not None
        self._receiver = self._spawn("receive", self.copy, server.stdout.readline().strip(), size_bytes)

    def _spawn(self, *arguments: object) -> subprocess.Popen[str]:
        command = [self._python, __file__, "--role", self.name, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def round(self) -> float:
        self.copy.unlink(missing_ok=True)
        assert self._receiver.stdin is not None
        assert self._receiver.stdout is not None
        self._receiver.stdin.write("go\n")
        self._receiver.stdin.flush()
        return float(self._receiver.stdout.readline())

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def play(role: str, arguments: list[str]) -> None:
    """What the processes of a peer do."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    part, path = arguments[0], Path(arguments[1])
    if part == "serve":
        serve: dict[str, Callable[[], Any]] = {
            "tcp": lambda: serve_tcp(path),
            "iroh": lambda: asyncio.run(serve_iroh(path)),
            "fallow": lambda: asyncio.run(serve_fallow(path)),
        }
        serve[role]()
        return
    address: Any = json.loads(arguments[2])
    receive: dict[str, Callable[[], Any]] = {
        "tcp": lambda: receive_tcp(address, path),
        "iroh": lambda: asyncio.run(receive_iroh(address, path)),
        "fallow": lambda: asyncio.run(receive_fallow(address, path)),
    }
    receive[role]()


def play_libp2p(arguments: list[str]) -> None:
    """Apart, since its Python need not have anything of ours."""
    if arguments[0] == "serve":
        serve_libp2p(Path(arguments[1]))
    else:
        receive_libp2p(json.loads(arguments[2]), Path(arguments[1]), int(arguments[3]))


def peers(record: Record) -> list[Peer]:
    """Those that are installed."""
    found = [
        Peer("tcp", "read and sendall", platform.python_version()),
        Peer("iroh", "one stream, binding repaired", importlib.metadata.version("iroh")),
        Peer(OURS, "verified, written, synced, indexed", importlib.metadata.version(OURS)),
    ]
    libp2p = peer_python("FALLOW_BENCH_LIBP2P_PYTHON", "libp2p")
    if libp2p is not None:
        python, versions = libp2p
        found.append(Peer("libp2p", "one stream, TCP+Noise+Yamux", versions["libp2p"], python))
    else:
        record.leave_out("py-libp2p is not installed here nor named by FALLOW_BENCH_LIBP2P_PYTHON: left out")
    return found


def race(found: list[Peer], folder: Path, rounds: int, size_bytes: int) -> None:
    """Fill in everybody's seconds."""
    digest = hashlib.blake2b()
    with open(folder / "source", "wb") as file:
        for _ in range(size_bytes // PIECE):
            piece = os.urandom(PIECE)
            digest.update(piece)
            file.write(piece)
    try:
        for peer in found:
            peer.start(folder, size_bytes)
        for number in range(rounds + 1):
            for peer in found:
                os.sync()
                seconds = peer.round()
                if number:
                    peer.seconds.append(seconds)
                else:
                    with open(peer.copy, "rb") as file:
                        assert hashlib.file_digest(file, "blake2b").digest() == digest.digest(), peer.name
    finally:
        for peer in found:
            peer.stop()


def report(record: Record, found: list[Peer], size_bytes: int) -> None:
    """The share of a raw stream's speed is of the same round."""
    seconds = {peer.name: peer.seconds for peer in found}
    shares = [raw / ours for raw, ours in zip(seconds["iroh"], seconds[OURS], strict=True)]
    record.add(Figure(OURS, "share of a raw iroh stream's speed", "", shares, GOAL, version=found[2].version))
    for peer in found:
        speeds = [size_bytes / one / 1e6 for one in peer.seconds]
        record.add(Figure(peer.name, peer.what, "MB/s", speeds, version=peer.version))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    record = Record(__file__, CLAIM)
    found, folder = peers(record), Path(tempfile.mkdtemp(prefix="fallow-bench-blobs-"))
    try:
        race(found, folder, options.rounds, options.mib << 20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(record, found, options.mib << 20)
    record.write({"size_mib": options.mib})


if __name__ == "__main__":
    if sys.argv[1:3] == ["--role", "libp2p"]:
        play_libp2p(sys.argv[3:])
    elif sys.argv[1:2] == ["--role"]:
        play(sys.argv[2], sys.argv[3:])
    else:
        main()
