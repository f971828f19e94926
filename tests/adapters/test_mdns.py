"""Nodes find each other over multicast DNS on loopback, and what others say there is taken with care."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf.asyncio import AsyncServiceInfo

from fallow.adapters.mdns import SERVICE, Mdns, Neighbour, describe, understand
from fallow.units import Account
from fallow.wire.messages import NodeAddress

LOOPBACK = ["127.0.0.1"]


def neighbour(number: int, *direct: str) -> Neighbour:
    address = NodeAddress(node=bytes([number]) * 32, direct=direct or (f"127.0.0.1:{4000 + number}",))
    return Neighbour(address, frozenset({"bank", "directory"}), Account(bytes([number]) * 20))


async def test_an_announced_node_is_found() -> None:
    async with Mdns(LOOPBACK) as one, Mdns(LOOPBACK) as other, asyncio.timeout(8), asyncio.TaskGroup() as group:
        wanted = neighbour(7)
        group.create_task(one.announce(wanted.address, wanted.roles, wanted.bank))
        async with aclosing(cast(Any, other.browse())) as found:
            async for seen in found:
                if seen == wanted:
                    break


async def test_nothing_is_announced_that_nobody_could_dial() -> None:
    assert describe(neighbour(1, "not an address", "host.example:5", "127.0.0.1")) is None
    async with Mdns(LOOPBACK) as mdns:
        await mdns.announce(NodeAddress(node=bytes(32)), frozenset())


@pytest.mark.parametrize(
    "known",
    [
        neighbour(1, "192.0.2.1:4001"),
        neighbour(2, "192.0.2.1:4001", "192.0.2.2:4001"),
        neighbour(3, "[2001:db8::1]:4001"),
        Neighbour(NodeAddress(node=b"\xff" * 32, direct=("192.0.2.9:1",)), frozenset(), Account(b"")),
    ],
)
def test_what_is_described_is_understood(known: Neighbour) -> None:
    info = describe(known)
    assert info is not None
    assert understand(info) == known
    assert len(info.name.split(".")[0]) <= 63


def test_addresses_on_other_ports_are_left_out() -> None:
    info = describe(neighbour(1, "192.0.2.1:4001", "192.0.2.1:4002", "192.0.2.3:4001"))
    assert info is not None
    understood = understand(info)
    assert understood is not None
    assert understood.address.direct == ("192.0.2.1:4001", "192.0.2.3:4001")


def heard(
    properties: dict[Any, Any], port: int | None = 5, addresses: tuple[str, ...] = ("192.0.2.1",)
) -> AsyncServiceInfo:
    return AsyncServiceInfo(SERVICE, f"x.{SERVICE}", port=port, parsed_addresses=list(addresses), properties=properties)


@pytest.mark.parametrize(
    "info",
    [
        heard({}),
        heard({"node": "00"}),
        heard({"node": "zz" * 32}),
        heard({b"node": b"\xff\xfe"}),
        heard({"node": "00" * 32, "bank": "00"}),
        heard({"node": "00" * 32}, port=0),
        heard({"node": "00" * 32}, addresses=()),
        heard({"node": None}),
    ],
)
def test_what_is_no_node_is_dropped(info: AsyncServiceInfo) -> None:
    assert understand(info) is None


def test_invented_roles_and_surplus_addresses_are_dropped() -> None:
    info = heard({"node": "00" * 32, "roles": "bank,king,"}, addresses=tuple(f"192.0.2.{n}" for n in range(1, 60)))
    understood = understand(info)
    assert understood is not None
    assert understood.roles == {"bank"}
    assert len(understood.address.direct) == 8


@given(st.dictionaries(st.sampled_from([b"node", b"roles", b"bank", b"x"]), st.binary(max_size=70)))
def test_any_record_is_understood_or_dropped(properties: dict[bytes, bytes]) -> None:
    found = understand(heard(properties))
    assert found is None or len(found.address.node) == 32
