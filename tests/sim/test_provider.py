from __future__ import annotations

import pytest
from tests.sim.worlds import Played, batch, play

from fallow.sim.faults import Happening
from fallow.wire.messages import Claimed


def claims(world: Played) -> list[bytes]:
    return [body.task for p in world.pool.providers for lease in p.state.leases for event in p.streams.told(lease)
            if isinstance(body := event.body, Claimed)]  # fmt: skip


@pytest.mark.parametrize("points", range(1, 15))
def test_a_provider_may_die_at_any_point_and_nothing_is_lost_or_claimed_twice(points: int) -> None:
    """The referee counts claims and roots; the outputs are those of a calm world."""
    happenings = [Happening(at_ms, "crash", ("p0",), 300, points) for at_ms in (2_000, 5_000, 8_000)]
    world = play(batch(8), happenings=happenings)
    assert world.code() == ""
    assert world.outputs() == play(batch(8)).outputs()


def test_a_lie_by_the_disk_is_not_the_same_as_a_death() -> None:
    """`test_bugs.py` plants it; here a disk that keeps its word, killed at the same moments, does no harm."""
    happenings = [Happening(at_ms, "kill", ("p0",), 300) for at_ms in range(2_000, 14_000, 1_000)]
    world = play(batch(8), happenings=happenings)
    assert world.code() == ""
    assert world.pool.by_name["p0"].deaths == 12
    assert claims(world)


def test_work_moves_when_the_owner_comes_back() -> None:
    happenings = [Happening(3_000, "owner", (name,), 10_000) for name in ("p0", "p1")]
    world = play(batch(8, units=60), happenings=happenings)
    assert world.code() == ""
    assert None not in world.outputs()


def test_an_honest_provider_tells_a_claim_once_under_each_lease() -> None:
    world = play(batch(8), loss=0.1, twice=0.2, reorder=0.2, echoes=0.2)
    for provider in world.pool.providers:
        for lease in provider.state.leases:
            tasks = [e.body.task for e in provider.streams.told(lease) if isinstance(e.body, Claimed)]
            assert len(tasks) == len(set(tasks))
