"""A requester that charges honest providers with evidence of its own making."""

from __future__ import annotations

from tests.sim.worlds import HONEST, batch, play


def test_false_charges_cost_nobody_anything() -> None:
    world = play(batch(), accuses=True)
    assert world.town.accuser is not None
    assert world.town.accuser.charges > 0
    assert not any(world.slashed_ucr(plan.name) for plan in HONEST)
    assert sum(world.paid_ucr(plan.name) for plan in HONEST) > 0
