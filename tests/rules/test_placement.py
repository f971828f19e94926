"""Placement against brute force over all choices of cards, and the truth of its shortfalls."""

from __future__ import annotations

from itertools import combinations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fallow.rules.placement import (
    IN_USE,
    TOO_SMALL,
    Capacity,
    Share,
    capacity_of,
    free_of,
    place,
    shortfalls,
    will_pass,
)
from fallow.wire.documents import Order
from fallow.wire.messages import Gpu, Hardware, Shortfall


def order(cpu: int = 0, ram: int = 0, disk: int = 0, gpus: int = 0, gpu_ram: int = 0) -> Order:
    return Order(
        requester=bytes(20), node=bytes(32), job=bytes(32), kind="echo", numerics="", cpu_millis=cpu, ram_bytes=ram,
        disk_bytes=disk, gpus=gpus, gpu_ram_bytes=gpu_ram, units=1, max_price_ucr=1, min_stake_ucr=0, verify="none",
        ends_ms=1, bank=bytes(20), nonce=bytes(32),
    )  # fmt: skip


small = st.integers(0, 6)
orders = st.builds(order, small, small, small, st.integers(0, 4), small)
gpus = st.lists(small, max_size=5).map(lambda sizes: tuple(Gpu(f"g{i}", "x", ram) for i, ram in enumerate(sizes)))
capacities = st.builds(Capacity, small, small, small, gpus)


def fits_by_brute_force(free: Capacity, wanted: Order) -> bool:
    plain = wanted.cpu_millis <= free.cpu_millis and wanted.ram_bytes <= free.ram_bytes
    chosen = combinations(free.cards, wanted.gpus)
    cards = any(all(gpu.ram_bytes >= wanted.gpu_ram_bytes for gpu in choice) for choice in chosen)
    return plain and wanted.disk_bytes <= free.disk_bytes and cards


@given(capacities, orders)
def test_places_exactly_what_brute_force_can(free: Capacity, wanted: Order) -> None:
    share = place(free, wanted)
    assert (share is not None) == fits_by_brute_force(free, wanted)
    if share is not None:
        rams = {gpu.card: gpu.ram_bytes for gpu in free.cards}
        assert len(set(share.cards)) == wanted.gpus
        assert all(rams[card] >= wanted.gpu_ram_bytes for card in share.cards)


@given(capacities, st.lists(orders, max_size=8))
def test_never_oversells(capacity: Capacity, wanted: list[Order]) -> None:
    taken: list[Share] = []
    for one in wanted:
        share = place(free_of(capacity, taken), one)
        if share is not None:
            taken.append(share)
    assert sum(s.cpu_millis for s in taken) <= capacity.cpu_millis
    assert sum(s.ram_bytes for s in taken) <= capacity.ram_bytes
    assert sum(s.disk_bytes for s in taken) <= capacity.disk_bytes
    sold = [card for share in taken for card in share.cards]
    assert len(sold) == len(set(sold))


@given(capacities, st.lists(orders, max_size=4), orders)
def test_shortfalls_tell_the_truth(capacity: Capacity, before: list[Order], wanted: Order) -> None:
    taken: list[Share] = []
    for one in before:
        share = place(free_of(capacity, taken), one)
        if share is not None:
            taken.append(share)
    free = free_of(capacity, taken)
    rows = shortfalls(capacity, free, wanted)
    assert (rows == ()) == (place(free, wanted) is not None)
    lowered = {"gpus" if row.resource == "gpus" else row.resource: row.have for row in rows}
    assert place(free, msgspec.structs.replace(wanted, **lowered)) is not None
    for row in rows:
        assert row.have < row.wanted
        alone = order(**{_SHORT[row.resource]: row.wanted})
        if row.resource not in ("gpus", "gpu_ram_bytes"):
            assert (row.note == IN_USE) == (place(capacity, alone) is not None)


_SHORT = {"cpu_millis": "cpu", "ram_bytes": "ram", "disk_bytes": "disk", "gpus": "gpus", "gpu_ram_bytes": "gpu_ram"}


def test_takes_the_smallest_cards_that_do() -> None:
    free = Capacity(0, 0, 0, (Gpu("a", "x", 80), Gpu("b", "x", 24), Gpu("c", "x", 24), Gpu("d", "x", 8)))
    share = place(free, order(gpus=2, gpu_ram=16))
    assert share is not None and share.cards == ("b", "c")


def test_tells_too_few_cards_from_too_small_ones() -> None:
    capacity = Capacity(0, 0, 0, (Gpu("a", "x", 24), Gpu("b", "x", 8)))
    (row,) = shortfalls(capacity, capacity, order(gpus=2, gpu_ram=16))
    assert (row.resource, row.wanted, row.have, row.note) == ("gpu_ram_bytes", 16, 8, TOO_SMALL)
    (row,) = shortfalls(capacity, capacity, order(gpus=3, gpu_ram=16))
    assert (row.resource, row.wanted, row.have, row.note) == ("gpus", 3, 1, TOO_SMALL)
    busy = free_of(capacity, [Share(0, 0, 0, ("a",))])
    (row,) = shortfalls(capacity, busy, order(gpus=2, gpu_ram=8))
    assert (row.resource, row.have, row.note) == ("gpus", 1, IN_USE)


def test_a_card_listed_twice_is_sold_once() -> None:
    hardware = Hardware("cpu", 1000, 1, 1, (Gpu("a", "x", 8), Gpu("a", "x", 8)), "n")
    assert place(capacity_of(hardware), order(gpus=2)) is None


def test_a_machine_that_shrank_has_nothing_free() -> None:
    free = free_of(Capacity(1, 1, 1), [Share(5, 5, 5)])
    assert free == Capacity(0, 0, 0)


def test_time_cures_what_others_use_and_nothing_else() -> None:
    busy, small = Shortfall("ram_bytes", 2, 1, IN_USE), Shortfall("ram_bytes", 2, 1, TOO_SMALL)
    assert will_pass(())
    assert will_pass((busy, Shortfall("owner is active", 0, 0), Shortfall("leases", 9, 8)))
    assert not will_pass((small,))
    assert not will_pass((busy, Shortfall("kind", 0, 0)))
