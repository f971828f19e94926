"""Sharing out chunks: everything is fetched, little twice, and no source holds up the others."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from fallow.node.fetch_plan import FetchPlan

HEDGE_S = 2.0


def test_the_first_source_is_asked_for_everything() -> None:
    plan = FetchPlan(range(100), HEDGE_S)
    assert plan.next_run(b"a", 0) == range(100)


def test_an_idle_source_takes_half_of_what_the_busiest_owes() -> None:
    plan = FetchPlan(range(100), HEDGE_S)
    plan.next_run(b"a", 0)
    assert plan.next_run(b"b", 0) == range(50, 100)
    assert plan.next_run(b"c", 0) in (range(25, 50), range(75, 100))


def test_holes_are_filled_one_after_another() -> None:
    plan = FetchPlan([0, 1, 2, 7, 9, 10], HEDGE_S)
    assert plan.next_run(b"a", 0) == range(3)
    assert plan.next_run(b"b", 0) == range(9, 11)
    assert plan.next_run(b"c", 0) == range(7, 8)
    assert plan.next_run(b"d", 0) is None


def test_what_a_dropped_source_owed_is_free_again() -> None:
    plan = FetchPlan(range(10), HEDGE_S)
    plan.next_run(b"a", 0)
    for index in range(4):
        plan.received(b"a", 0)
        if index < 2:
            assert plan.arrived(b"a", index)
    plan.release(b"a")
    assert plan.next_run(b"b", 0) == range(2, 10)


def test_a_silent_source_is_relieved_of_all_but_one_chunk_which_comes_twice() -> None:
    plan = FetchPlan(range(3), HEDGE_S)
    plan.next_run(b"silent", 0)
    assert plan.next_run(b"b", 1.9) is None
    assert plan.next_run(b"b", 2.0) == range(1, 3)
    assert plan.current(b"silent") == 0
    for index in (1, 2):
        plan.received(b"b", 2)
        assert plan.arrived(b"b", index)
    plan.release(b"b")
    assert plan.next_run(b"b", 2.0) == range(1)
    assert plan.next_run(b"c", 9.0) is None, "two copies are enough"
    plan.received(b"b", 2)
    assert plan.arrived(b"b", 0)
    assert plan.done
    plan.received(b"silent", 3)
    assert not plan.arrived(b"silent", 0)


def test_a_hedge_that_fails_does_not_free_what_the_owner_still_sends() -> None:
    plan = FetchPlan(range(1), HEDGE_S)
    plan.next_run(b"a", 0)
    assert plan.next_run(b"b", 3) == range(1)
    plan.release(b"b")
    assert plan.next_run(b"c", 0) is None
    plan.release(b"a")
    assert plan.next_run(b"c", 0) == range(1)


@given(
    chunks=st.integers(0, 300),
    speeds=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    seed=st.integers(0, 1 << 32),
)
def test_every_chunk_comes_whatever_the_sources_do(chunks: int, speeds: list[int], seed: int) -> None:
    """Each source sends `speed` chunks a second (0: it stalls), some are dropped in the middle; the last never is."""
    plan, chance = FetchPlan(range(chunks), HEDGE_S), random.Random(seed)
    sources = {bytes([n]): speed for n, speed in enumerate(speeds)} | {b"honest": 5}
    busy: set[bytes] = set()
    sent = requests = drops = 0
    for second in range(10 * chunks + 100):
        if plan.done:
            break
        for source, speed in list(sources.items()):
            for _ in range(max(1, speed)):
                if source not in busy:
                    if plan.next_run(source, second) is None:
                        break
                    busy.add(source)
                    requests += 1
                index = plan.current(source)
                if index is None:
                    plan.release(source)
                    busy.remove(source)
                    continue
                if speed == 0:
                    break
                plan.received(source, second)
                sent += 1
                if source != b"honest" and chance.random() < 0.02:
                    plan.release(source)
                    busy.discard(source)
                    del sources[source]
                    drops += 1
                    break
                plan.arrived(source, index)
    assert plan.done
    assert sent - chunks <= drops + 2 * len(speeds) + 2
    assert requests <= (len(speeds) + 1 + drops) * (math.log2(chunks + 2) + 3) * 2
