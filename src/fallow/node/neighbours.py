"""Pools on the same LAN: a node says which pool it is in, and who looks is told which there are. That is all: to join,
a ticket is needed, since it is the invitation; what is heard here is hearsay."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import structlog

from fallow.adapters.mdns import Mdns, Neighbour
from fallow.units import to_text
from fallow.wire.messages import NodeAddress

log = structlog.get_logger()

LOOK_S = 2.0
MAX_POOLS = 16
"""More are hardly real: anybody on the LAN can invent some."""


@dataclass(frozen=True)
class NearPool:
    """A pool that somebody on the LAN says to be in. `places` are where its nodes can be dialled."""

    bank: str
    places: tuple[str, ...]


def beyond_loopback(address: NodeAddress) -> bool:
    """Whether another machine could dial the address."""
    return any(not _is_loopback(place) for place in address.direct)


def _is_loopback(place: str) -> bool:
    try:
        return ipaddress.ip_address(place.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return True


async def announce(
    address: NodeAddress, roles: Iterable[str], bank: bytes, interfaces: Sequence[str] | None = None
) -> None:
    """Say that this node is in the pool of `bank`, until cancelled. Ends when multicast does not work here: it is a
    convenience, and no reason to stop a node."""
    try:
        async with Mdns(interfaces) as mdns:
            await mdns.announce(address, frozenset(roles), bank)
            await asyncio.Event().wait()
    except OSError as error:
        log.info("not announced on the LAN", why=str(error))


async def near_pools(within_s: float = LOOK_S, interfaces: Sequence[str] | None = None) -> list[NearPool]:
    """The pools that are announced within so many seconds; none where multicast does not work."""
    found: dict[bytes, dict[str, None]] = {}
    try:
        async with Mdns(interfaces) as mdns, aclosing(cast(Any, mdns.browse())) as neighbours:
            async with asyncio.timeout(within_s):
                async for one in neighbours:
                    _note(found, one)
    except (TimeoutError, OSError):
        pass
    return [NearPool(to_text("account", bank), tuple(places)) for bank, places in sorted(found.items())]


def _note(found: dict[bytes, dict[str, None]], one: Neighbour) -> None:
    if one.bank and (one.bank in found or len(found) < MAX_POOLS):
        found.setdefault(one.bank, {}).update(dict.fromkeys(one.address.direct[:MAX_POOLS]))
