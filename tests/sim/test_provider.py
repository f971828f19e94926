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
    claimed = claims(world)
    assert len(claimed) == len(set(claimed)) or world.pool.referee.checked


def test_work_moves_when_the_owner_comes_back() -> None:
    happenings = [Happening(3_000, "owner", (name,), 10_000) for name in ("p0", "p1")]
    world = play(batch(8, units=60), happenings=happenings)
    assert world.code() == ""
    assert None not in world.outputs()


def test_an_input_that_nobody_hands_out_is_a_failed_task_and_not_a_claim() -> None:
    world = play(batch(2))
    provider = world.pool.providers[0]
    world.pool.referee.holders.clear()
    assert provider.blobs == set()
    assert world.pool.referee.held_by(provider.node) == set()
