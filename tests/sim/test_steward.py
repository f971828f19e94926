from __future__ import annotations

import pytest
from tests.sim.worlds import batch, lane, play, train

from fallow.rules.steward.events import AnyStewardEvent
from fallow.rules.steward.machine import transition
from fallow.rules.steward.snapshot import read_snapshot
from fallow.sim.faults import Happening
from fallow.sim.steward import COMPACT_EVERY, SNAPSHOT, STREAM
from fallow.wire import codec


@pytest.mark.parametrize("points", range(1, 25))
def test_the_steward_may_die_at_any_point(points: int) -> None:
    """At every start the referee compares what is replayed with what was lost."""
    happenings = [Happening(at_ms, "crash", ("steward",), 200, points) for at_ms in (500, 3_000, 6_000)]
    world = play(batch(8), train(), happenings=happenings)
    assert (world.code("job"), world.code("train")) == ("", "")
    assert world.pool.steward.deaths >= 1


def test_a_storm_of_deaths_loses_nothing() -> None:
    happenings = [Happening(at_ms, "kill", ("steward",), 100) for at_ms in range(1_500, 19_000, 700)]
    world = play(batch(8), happenings=happenings)
    assert world.code() == ""
    assert world.outputs() == play(batch(8)).outputs()
    assert world.pool.steward.deaths > 10


def test_the_log_alone_gives_the_state() -> None:
    world = play(batch(8), lane(10), echoes=0.2)
    saved = world.pool.steward.log.get(SNAPSHOT)
    assert saved is not None
    replayed, after = read_snapshot(saved).state, world.pool.steward.log.read(STREAM)
    assert 0 < len(after) < COMPACT_EVERY
    for _, raw in after:
        transition(replayed, codec.decode(AnyStewardEvent, raw))
    assert replayed == world.pool.steward.state


def test_submitting_until_heard_is_submitting_once() -> None:
    world = play(batch(3), loss=0.3, twice=0.3)
    assert len(world.pool.steward.state.jobs) == 1
    assert world.code() == ""
