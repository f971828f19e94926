from __future__ import annotations

from tests.sim.worlds import HONEST, Played, batch, liar, play

from fallow.rules.steward.state import Mark
from fallow.sim.faults import Happening
from fallow.sim.pool import LOST_MS
from fallow.sim.run import simulate


def lost(world: Played) -> set[str]:
    seats = [seat for job in world.pool.steward.state.jobs.values() for seat in job.seats if seat.mark is Mark.LOST]
    return {world.pool.referee.name(seat.node) for seat in seats}


def test_who_cannot_be_observed_for_a_while_is_not_dead() -> None:
    for for_ms, gone in ((LOST_MS // 3, set[str]()), (3 * LOST_MS, {"p0"})):
        happenings = [Happening(4_000, "cut", ("p0",), for_ms)]
        world = play(batch(30, units=60), happenings=happenings, calm_ms=60_000)
        assert lost(world) & {"p0"} == gone
        assert world.code() == ""


def test_seed_3863_who_answers_quotes_and_nothing_else_is_given_up() -> None:
    """A quote made the brain believe that the node was there again, and nobody told it otherwise: its tasks stayed with
    it for ever. Found with three jobs and a provider that vanishes."""
    assert not simulate(3863).failure
    world = play(batch(12), providers=[*HONEST, liar("vanish")])
    assert "cheat" in lost(world)


def test_claims_that_do_not_commit_to_what_they_came_with_are_failures() -> None:
    for way in ("overmeter", "copycat"):
        world = play(batch(6), providers=[*HONEST, liar(way)])
        attempts = [a for job in world.pool.steward.state.jobs.values() for slot in job.slots for a in slot.attempts]
        blamed = {attempt.account for attempt in attempts}
        assert way == "copycat" or world.account("cheat") in blamed
        assert world.code() == ""
