"""Exact placement of an order on one machine: so many CPU thousandths, bytes of RAM and disk, and *these* GPU cards.

Nothing is estimated and nothing is sold twice: a `Share` names what a reservation or a lease holds, and what is free
is what the machine has less all shares. A card belongs to one share at a time. One order either fits or does not, and
`shortfalls` says by how much in every resource, so that "why did nobody take my job?" has a true answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fallow.wire.documents import Order
from fallow.wire.messages import Gpu, Hardware, Shortfall

IN_USE = "in use by other leases now"
TOO_SMALL = "more than this machine has"


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What one reservation or lease holds of a machine; `cards` are GPU ids in ascending order."""

    cpu_millis: int
    ram_bytes: int
    disk_bytes: int
    cards: tuple[str, ...] = ()


class Capacity(msgspec.Struct, frozen=True, array_like=True):
    """What a machine sells in all, or what of it is free. Never negative."""

    cpu_millis: int
    ram_bytes: int
    disk_bytes: int
    cards: tuple[Gpu, ...] = ()


def capacity_of(hardware: Hardware) -> Capacity:
    """What `hardware` can sell. Of two cards with one id the first counts, so that a card cannot be sold twice by
    being listed twice."""
    cards = {gpu.card: gpu for gpu in reversed(hardware.gpus)}
    ordered = tuple(sorted(cards.values(), key=lambda gpu: gpu.card))
    return Capacity(hardware.cpu_millis, hardware.ram_bytes, hardware.disk_bytes, ordered)


def free_of(capacity: Capacity, taken: Iterable[Share]) -> Capacity:
    """`capacity` less all shares in `taken`. Clamped at zero: a machine may have shrunk under running leases."""
    cpu, ram, disk, used = capacity.cpu_millis, capacity.ram_bytes, capacity.disk_bytes, set[str]()
    for share in taken:
        cpu, ram, disk = cpu - share.cpu_millis, ram - share.ram_bytes, disk - share.disk_bytes
        used.update(share.cards)
    cards = tuple(gpu for gpu in capacity.cards if gpu.card not in used)
    return Capacity(max(cpu, 0), max(ram, 0), max(disk, 0), cards)


PASSING = frozenset({"leases", "quotes", "owner is active", "stake_ucr", "lease"})
"""What else a provider may lack that other leases or its owner have just now."""


def will_pass(rows: Iterable[Shortfall]) -> bool:
    """Whether time alone may cure all that an order was declined for. True of no reason at all: a node that could not
    be reached."""
    return all(row.note == IN_USE or row.resource in PASSING for row in rows)


def place(free: Capacity, order: Order) -> Share | None:
    """The share of `free` that `order` would hold, or None exactly when no choice of cards satisfies it. Of several
    choices it takes the smallest cards that are big enough, so that big cards stay free for orders that need them."""
    if order.cpu_millis > free.cpu_millis or order.ram_bytes > free.ram_bytes or order.disk_bytes > free.disk_bytes:
        return None
    fitting = sorted(_fitting(free, order), key=lambda gpu: (gpu.ram_bytes, gpu.card))
    if len(fitting) < order.gpus:
        return None
    cards = tuple(sorted(gpu.card for gpu in fitting[: order.gpus]))
    return Share(order.cpu_millis, order.ram_bytes, order.disk_bytes, cards)


def shortfalls(capacity: Capacity, free: Capacity, order: Order) -> tuple[Shortfall, ...]:
    """Why `order` does not fit into `free`; empty exactly when `place` succeeds. An order whose every named resource
    is lowered to `have` fits. `note` tells what time will cure (other leases) from what it will not (the machine is
    too small)."""
    rows = (
        ("cpu_millis", order.cpu_millis, free.cpu_millis, capacity.cpu_millis),
        ("ram_bytes", order.ram_bytes, free.ram_bytes, capacity.ram_bytes),
        ("disk_bytes", order.disk_bytes, free.disk_bytes, capacity.disk_bytes),
        _card_row(capacity, free, order),
    )
    return tuple(
        Shortfall(name, wanted, have, IN_USE if wanted <= whole else TOO_SMALL)
        for name, wanted, have, whole in rows
        if wanted > have
    )


def _card_row(capacity: Capacity, free: Capacity, order: Order) -> tuple[str, int, int, int]:
    """(resource, wanted, free, in all) for the cards: too few of them, or enough but with too little memory."""
    fitting = len(_fitting(free, order))
    if fitting < order.gpus <= len(free.cards):
        return ("gpu_ram_bytes", order.gpu_ram_bytes, _nth_ram(free, order.gpus), _nth_ram(capacity, order.gpus))
    return ("gpus", order.gpus, fitting, len(_fitting(capacity, order)))


def _fitting(capacity: Capacity, order: Order) -> list[Gpu]:
    return [gpu for gpu in capacity.cards if gpu.ram_bytes >= order.gpu_ram_bytes]


def _nth_ram(capacity: Capacity, count: int) -> int:
    """The most memory that `count` cards have at least, each."""
    sizes = sorted((gpu.ram_bytes for gpu in capacity.cards), reverse=True)
    return sizes[count - 1] if 0 < count <= len(sizes) else 0
