"""Whole worlds with nothing left to chance but delays: what happens in them, and stories that once went wrong."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.sim.worlds import HONEST, batch, exact, lane, liar, play, train

from fallow.sim import town as module
from fallow.sim.chain import digest
from fallow.sim.plan import RICH_UCR, Happening, Plan, ProviderPlan
from fallow.sim.run import simulate
from fallow.sim.work import honest_output
from fallow.wire.tasks import TaskOutput


def values(outputs: tuple[TaskOutput | None, ...]) -> set[bytes]:
    return {output.value for output in outputs if output is not None}


def test_a_batch_is_done_checked_and_paid() -> None:
    world = play(batch())
    assert world.code() == ""
    assert None not in world.outputs()
    receipts = world.town.referee.receipts.values()
    assert values(world.outputs()) == {honest_output(r.spec).value for r in receipts if r.spec is not None}
    assert sum(world.paid_ucr(p.name) for p in HONEST) == sum(receipt.paid_ucr for receipt in receipts) > 0


def test_training_goes_through_its_rounds() -> None:
    world = play(train(rounds=10))
    assert world.code() == ""
    (result,) = world.outputs()
    assert result is not None
    assert [part.name for part in result.parts] == ["adapter/weights"]
    steward = world.town.steward.stewarding
    assert steward is not None
    view = steward.view(digest("job", "train"))
    assert view.done == 10
    assert all(each.agreed for each in view.rounds)


def test_lanes_answer_until_they_are_cancelled() -> None:
    world = play(lane())
    assert world.code() == "E1402"
    assert len(world.town.user.answers["lane"]) == 20
    units = sum(receipt.units for receipt in world.town.referee.receipts.values())
    assert units >= 20, "twenty questions, and some asked again as checks"


def test_the_same_work_is_done_through_a_partition_and_deaths() -> None:
    calm = play(batch(12))
    happenings = (
        Happening(2_000, "crash", ("steward",), 500, 3),
        Happening(4_000, "cut", ("p0", "p1"), 8_000),
        Happening(5_000, "kill", ("bank",), 2_000),
        Happening(6_000, "deaf", ("p2",), 3_000),
        Happening(7_000, "clog", ("steward",), 2_000),
        Happening(8_000, "kill", ("p3",), 500),
        Happening(9_000, "owner", ("p2",), 3_000),
        Happening(9_500, "full", ("p1",), 3_000),
        Happening(9_800, "jump", ("p0",), 3_000),
    )
    rough = play(batch(12), happenings=happenings, loss=0.005, late=0.1)
    assert rough.code() == ""
    assert rough.outputs() == calm.outputs()
    assert sum(host.deaths for host in rough.town.hosts.values()) == 3


def test_a_budget_is_never_exceeded_however_small() -> None:
    for budget in (10, 60, 100, 200):
        job = batch(12)
        world = play(replace(job, spec=msgspec.structs.replace(job.spec, budget_ucr=budget)))
        spent = sum(receipt.paid_ucr for receipt in world.town.referee.receipts.values())
        assert spent <= budget
        assert world.code() in ("", "E1401")


def test_a_world_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 6.0)
    plan = Plan(HONEST, (batch(units=10_000),), calm_ms=2_000)
    assert "job has not ended" in simulate(1, plan=plan).failure


def test_ample_jobs_have_no_excuse() -> None:
    job = batch()
    assert job.spec.budget_ucr == RICH_UCR
    deaf = tuple(replace(plan, price_ucr=10**12) for plan in HONEST)
    assert "although nobody cheats" in simulate(1, plan=Plan(deaf, (job,), calm_ms=2_000)).failure


@pytest.mark.slow
def test_a_thousand_providers_find_their_work() -> None:
    crowd = tuple(ProviderPlan(f"p{n}", account=f"p{n}", salt=f"p{n}") for n in range(1_000))
    world = play(batch(100, verify="audit", workers=50, units=20), providers=crowd, calm_ms=3_000)
    assert world.code() == ""
    assert len({row.provider for row in world.town.escrows() if row.paid_ucr}) >= 40


# what once went wrong -------------------------------------------------------------------------------------------------


def test_seed_44_a_voucher_that_the_provider_never_got_is_paid_before_it_may_close() -> None:
    """The bank is gone when a lease is settled, and then the steward."""
    for at_ms in range(3_000, 9_000, 500):
        faults = (Happening(at_ms, "kill", ("bank",), 1_500), Happening(at_ms + 300, "kill", ("steward",), 700))
        assert play(batch(4), happenings=faults).code() == ""


def test_seed_402_a_lane_claim_that_is_told_again_after_it_was_paid_is_not_paid_again() -> None:
    """Nor is another root over the same answers."""
    world = play(lane(40, cancel_ms=60_000), providers=[*HONEST[:3], liar("invent")])
    assert any(r.terms.provider == world.account("cheat") for r in world.town.referee.receipts.values())


@pytest.mark.parametrize("job", [batch(12), train(), exact()], ids=["batch", "train", "exact"])
def test_seed_3863_who_answers_quotes_and_nothing_else_is_given_up(job: module.JobPlan) -> None:
    """It took the call of the one who watches its lease and said nothing on it: a round waited to the lease's end."""
    assert play(job, providers=[*HONEST, liar("vanish")]).code() == ""


@pytest.mark.parametrize("for_ms", [20_000, 45_000, 75_000])
def test_seeds_7368_7690_a_lease_that_opens_after_its_provider_gave_it_up_is_closed(for_ms: int) -> None:
    """The bank is away for longer than providers wait for an escrow."""
    for at_ms in (1_050, 1_200, 1_400):
        play(batch(), happenings=(Happening(at_ms, "kill", ("bank",), for_ms),))


def test_seed_7401_nodes_that_were_out_of_reach_are_asked_again_later() -> None:
    """One long outage at the steward, after which no lease is left whose watch could tell that they are back."""
    job = batch(20, units=100)
    assert play(job, happenings=(Happening(3_000, "cut", ("steward",), 40_000),), calm_ms=50_000).code() == ""


def test_seeds_5733_21018_checks_and_tasks_that_outlast_their_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends with its lease is done elsewhere, and is nobody's fault."""
    monkeypatch.setattr(module, "TIMING", msgspec.structs.replace(module.TIMING, lease_length=25_000))
    assert play(batch(12, units=400), providers=[*HONEST, liar("silent")]).code() in ("", "E1404")


@pytest.mark.parametrize("seed", range(4))
def test_seeds_30057_31288_31315_31413_audits_that_come_late_or_are_made_up(seed: int) -> None:
    """A sample that comes back after what it was to check is gone; a made-up audit of a claim that is false as well:
    one is not paid, the other is not held against an honest auditor."""
    faults = (Happening(4_000, "clog", ("p0",), 9_000), Happening(6_000, "kill", ("p1",), 8_000))
    cheats = [liar("flip"), liar("alarm", "cheat2", 110)]
    play(exact(rounds=6, workers=4), providers=[*HONEST, *cheats], happenings=faults, seed=seed)


def test_seed_32837_time_in_which_the_steward_was_down_is_not_time_in_which_nobody_offered() -> None:
    play(batch(), happenings=(Happening(1_020, "kill", ("steward",), 100_000),), calm_ms=110_000)
    world = play(batch(), happenings=(Happening(1_020, "kill", ("steward",), 100_000),), calm_ms=110_000)
    assert world.code() == ""


def test_seed_427_an_audit_of_a_claim_that_was_decided_when_its_lease_ended_is_given_up() -> None:
    """Its states were fetched and let go again, for ever and at once."""
    assert not simulate(427).failure
