"""The owner of the jobs says each thing until it is heard."""

from __future__ import annotations

from tests.sim.worlds import batch, lane, play

from fallow.sim.plan import Happening
from fallow.sim.work import lane_value


def test_a_job_is_handed_in_once_the_steward_is_back() -> None:
    world = play(batch(), happenings=(Happening(500, "kill", ("steward",), 5_000),))
    assert world.code() == ""


def test_what_a_broken_lane_left_open_is_asked_again() -> None:
    world = play(lane(20, cancel_ms=60_000), happenings=(Happening(6_000, "kill", ("steward",), 2_000),))
    answers = world.town.user.answers["lane"]
    assert sorted(answers) == list(range(1, 21))
    assert all(answers[number].value == lane_value(b"%d" % number, number) for number in answers)
