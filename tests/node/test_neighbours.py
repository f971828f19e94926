"""Pools announced on a LAN (here: on loopback) are found, and nothing more is believed of them."""

from __future__ import annotations

import asyncio

import pytest

from fallow.node import neighbours
from fallow.node.neighbours import announce, beyond_loopback, near_pools
from fallow.units import to_text
from fallow.wire.messages import NodeAddress

LOOPBACK = ["127.0.0.1"]
BANK = b"b" * 20


def address(number: int) -> NodeAddress:
    return NodeAddress(bytes([number]) * 32, (f"127.0.0.1:{4200 + number}",))


async def test_a_pool_that_is_announced_is_near() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(announce(address(n), ("bank",), BANK, LOOPBACK)) for n in (1, 2)]
        tasks.append(group.create_task(announce(address(3), ("directory",), b"", LOOPBACK)))
        pools = []
        for _ in range(5):
            pools = await near_pools(1.0, LOOPBACK)
            if pools and len(pools[0].places) == 2:
                break
        for task in tasks:
            task.cancel()
    assert [(pool.bank, sorted(pool.places)) for pool in pools] == [
        (to_text("account", BANK), ["127.0.0.1:4201", "127.0.0.1:4202"])
    ]


async def test_where_multicast_does_not_work_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            raise OSError("no multicast here")

    monkeypatch.setattr(neighbours, "Mdns", Broken)
    assert await near_pools(0.1) == []
    await announce(address(1), (), BANK)


@pytest.mark.parametrize(
    ("places", "far"),
    [(("127.0.0.1:1", "[::1]:2"), False), ((), False), (("127.0.0.1:1", "192.0.2.1:2"), True), (("nonsense",), False)],
)
def test_who_can_be_dialled_by_this_machine_only_is_not_announced(places: tuple[str, ...], far: bool) -> None:
    assert beyond_loopback(NodeAddress(bytes(32), places)) is far
