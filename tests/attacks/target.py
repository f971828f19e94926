"""A node to attack: real processes, what they weigh, and strangers with keys of their own. Each test of this folder
says in its docstring what is tried, what the attacker gained by it, and what it cost them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from blake3 import blake3

from fallow.adapters.iroh_transport import IrohTransport
from fallow.adapters.keys import Identity
from fallow.cli.demo_net import Member, Network
from fallow.errors import FallowError
from fallow.node.config import Ticket, read_address, read_ticket
from fallow.node.rpc import Rpc
from fallow.ports import Connection, Stream
from fallow.sdk.calls import CallStream
from fallow.wire.frames import FrameKind
from fallow.wire.messages import Message, NodeAddress

MIB = 1 << 20
CALL_S = 20.0


@dataclass
class Target:
    """One process with the roles that were asked for."""

    member: Member

    @property
    def pid(self) -> int:
        return self.member.announced["pid"]

    @property
    def address(self) -> NodeAddress:
        return read_address(self.member.announced["address"])

    @property
    def url(self) -> str:
        return self.member.announced["base_url"]

    @property
    def ticket(self) -> Ticket:
        return read_ticket(self.member.announced["ticket"])

    def peak_mib(self) -> float:
        """The most memory that the process ever had."""
        return self._status("VmHWM") / 1024

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise AssertionError(field)

    def alive(self) -> bool:
        return self.member.process.poll() is None


@asynccontextmanager
async def target(folder: Path, *words: str, config: str = "", files: int = 1024) -> AsyncIterator[Target]:
    """`fallow up WORDS` on this machine's loopback, with so many file descriptors."""
    within = ("/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
    with Network(folder) as network:
        member = network.start("target", "up", *words, "--bind", "127.0.0.1:0", config=config, within=within)
        await member.wait_until_ready()
        yield Target(member)


def identity(number: int) -> Identity:
    """A stranger's keys: two hashes, so keys cost nothing."""
    return Identity.from_secrets(blake3(b"node %d" % number).digest(), blake3(b"account %d" % number).digest())


class Strangers:
    """Nodes that nobody invited, each with a key of its own."""

    def __init__(self) -> None:
        self._life = AsyncExitStack()
        self._transports: dict[int, IrohTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.aclose()

    async def transport(self, number: int) -> IrohTransport:
        if number not in self._transports:
            made = self._transports[number] = await IrohTransport.bind(identity(number).node_secret)
            self._life.push_async_callback(made.close)
        return self._transports[number]

    async def dial(self, number: int, address: NodeAddress) -> Connection:
        return await (await self.transport(number)).connect(address, CALL_S)

    async def rpc(self, number: int) -> Rpc:
        return await self._life.enter_async_context(Rpc(await self.transport(number)))


async def half_a_call(connection: Connection, size_bytes: int) -> Stream | None:
    """A call that declares one byte more than it ever sends; None when it is broken off before."""
    with suppress(FallowError, TimeoutError):
        async with asyncio.timeout(CALL_S / 4):
            stream = await connection.open()
            await stream.send(struct.pack(">IB", size_bytes + 1, FrameKind.CALL))
            for start in range(0, size_bytes, MIB):
                await stream.send(bytes(min(MIB, size_bytes - start)))
            return stream
    return None


async def refusal(stream: Stream) -> str:
    """The code that the other side ended a stream with, "E1801" when it was broken off."""
    try:
        async with asyncio.timeout(CALL_S):
            async for _ in CallStream(stream, None):
                pass
    except FallowError as error:
        return error.code
    return ""


async def answer_code(rpc: Rpc, address: NodeAddress, request: Message) -> str:
    """ "" for a call that is answered, else the code that it was refused with."""
    try:
        await rpc.call(address, request, CALL_S)
    except FallowError as error:
        return error.code
    return ""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(CALL_S):
        while not condition():
            await asyncio.sleep(0.02)
