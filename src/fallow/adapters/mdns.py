"""Nodes on a LAN find each other: announce and browse `_fallow._udp.local.`.

What is heard here is hearsay from anybody on the network: an address to dial, which proves its key when it is dialled,
and claims about roles and bank that mean nothing until checked. Bounded in number and size; malformed records are
dropped.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from fallow.units import Account, NodeId
from fallow.wire.messages import NodeAddress

SERVICE = "_fallow._udp.local."
ROLES = frozenset({"bank", "directory", "steward", "gateway", "provider"})
MAX_PLACES = 8
MAX_WAITING = 256
MAX_LOOKUPS = 32
LOOKUP_MS = 3000


@dataclass(frozen=True)
class Neighbour:
    """A node that says it is there. `bank` is b"" when it names none."""

    address: NodeAddress
    roles: frozenset[str]
    bank: Account


class Mdns:
    """Multicast DNS on `interfaces` (IP addresses; all of the machine's by default). Use as `async with`."""

    def __init__(self, interfaces: Sequence[str] | None = None) -> None:
        self._interfaces = interfaces
        self._life = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as life:
            if self._interfaces is None:
                self._zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
            else:
                self._zeroconf = AsyncZeroconf(interfaces=list(self._interfaces), ip_version=IPVersion.V4Only)
            life.push_async_callback(self._zeroconf.async_close)
            self._group = await life.enter_async_context(asyncio.TaskGroup())
            self._life = life.pop_all()
        self._lookups: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the announcements back."""
        for task in self._lookups:
            task.cancel()
        await self._life.aclose()

    async def announce(self, address: NodeAddress, roles: frozenset[str], bank: bytes = b"") -> None:
        """Say that this node is here, until the block ends. An address without an IP that others could dial is not
        announced."""
        info = describe(Neighbour(address, roles, Account(bank)))
        if info is not None:
            zeroconf: Any = self._zeroconf
            # the name holds the key, so whoever answers for it already is an earlier run of this very node
            await (await zeroconf.async_register_service(info, cooperating_responders=True))

    async def browse(self) -> AsyncIterator[Neighbour]:
        """Neighbours as they appear or change, for as long as the caller iterates. When more appear than the caller
        takes, the surplus is dropped; they announce themselves again."""
        found: asyncio.Queue[Neighbour] = asyncio.Queue(MAX_WAITING)

        async def look_up(name: str) -> None:
            info = AsyncServiceInfo(SERVICE, name)
            if await info.async_request(self._zeroconf.zeroconf, LOOKUP_MS):
                neighbour = understand(info)
                if neighbour is not None and not found.full():
                    found.put_nowait(neighbour)

        def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            del zeroconf, service_type  # zeroconf passes all four by name
            if state_change is not ServiceStateChange.Removed and len(self._lookups) < MAX_LOOKUPS:
                task = self._group.create_task(look_up(name))
                self._lookups.add(task)
                task.add_done_callback(self._lookups.discard)

        browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[changed])
        try:
            while True:
                yield await found.get()
        finally:
            await browser.async_cancel()


def describe(neighbour: Neighbour) -> AsyncServiceInfo | None:
    """The DNS records of a node. The port is that of its first address; addresses on other ports are left out."""
    places = [place for place in map(_place, neighbour.address.direct) if place is not None]
    if not places:
        return None
    port = places[0][1]
    label = base64.b32encode(neighbour.address.node).decode().rstrip("=").lower()  # 52 letters; a label holds 63
    return AsyncServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=port,
        parsed_addresses=[host for host, other in places if other == port][:MAX_PLACES],
        server=f"{label}.local.",
        properties={
            "node": neighbour.address.node.hex(),
            "roles": ",".join(sorted(neighbour.roles)),
            "bank": neighbour.bank.hex(),
        },
    )


def understand(info: AsyncServiceInfo) -> Neighbour | None:
    """The inverse; None for records that are not of ours, whoever sent them."""
    try:
        texts = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
        node, bank = bytes.fromhex(texts["node"]), bytes.fromhex(texts.get("bank", ""))
    except (KeyError, ValueError):
        return None
    roles = frozenset(texts.get("roles", "").split(",")) & ROLES
    hosts = info.parsed_addresses(IPVersion.All)[:MAX_PLACES]
    if len(node) != 32 or len(bank) not in (0, 20) or not hosts or not info.port:
        return None
    places = tuple(f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}" for host in hosts)
    return Neighbour(NodeAddress(node=NodeId(node), direct=places), roles, Account(bank))


def _place(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        return None
