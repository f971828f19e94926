"""Where the answers of others do not decide, the steward's own machine does."""

from __future__ import annotations

import random

import pytest
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, exact_spec, honest_crowd, lie, train_spec

from fallow.rules.steward import events as t
from fallow.rules.steward.state import Fate
from fallow.wire.local import JobSpec
from fallow.wire.messages import EXACT
from fallow.wire.tasks import TaskOutput, TaskSpec


def right(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
    return honest


def two_who_disagree(**changes: object) -> Crowd:
    """Nobody else is there."""
    providers = [Provider("liar", answer=lie(), price=900), Provider("p")]
    return Crowd(providers, machine=right, **changes)  # pyright: ignore[reportArgumentType]


def settle(crowd: Crowd, times: int = 60) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def wrong_finals(crowd: Crowd, job: bytes) -> int:
    liars = {provider.account for provider in crowd.providers if provider.name.startswith("liar")}
    runs = (run for slot in crowd.state.jobs[job].slots for run in slot.runs)
    return sum(run.fate is Fate.FINAL and run.account in liars for run in runs)


@pytest.mark.parametrize("spec", [batch_spec(3, 1), train_spec(1, 2), exact_spec(1, 2, verify="audit:links=0")])
def test_a_tie_is_decided_by_the_steward_s_own_machine(spec: JobSpec) -> None:
    """One against one was no verdict: the liar lost nothing, the honest one was not paid. Now the liar is banned, the
    honest one is paid; nothing is charged, since a ledger wants two others."""
    crowd = two_who_disagree()
    job = crowd.submit(spec)
    settle(crowd)
    liar, honest = crowd.providers
    assert crowd.of(t.ReplayTask)
    assert crowd.state.standing(liar.account).banned
    assert not crowd.state.standing(honest.account).banned
    assert wrong_finals(crowd, job) == crowd.paid_to(liar) == 0
    assert crowd.paid_to(honest) > 0
    assert not crowd.slashed
    (first, *_) = [one for one in crowd.of(t.KeepReceipt) if one.check == "replayed"]
    assert "own machine" in first.reason
    assert not first.agreeing


def test_what_is_asked_of_the_machine_names_the_class_that_gives_the_same_bits() -> None:
    crowd = two_who_disagree(hold={t.ReplayTask})
    for number, spec in enumerate((batch_spec(1, 1), train_spec(1, 1), exact_spec(1, 1, verify="audit:links=0"))):
        crowd.submit(spec, f"job {number}")
        crowd.run()
        crowd.pass_time(6_000)
        crowd.pass_time(60_000)
    assert [one.numerics for one in crowd.of(t.ReplayTask)][:3] == ["", "x86", EXACT]


def test_a_machine_that_agrees_with_nobody_accuses_nobody() -> None:
    """It may be the one that is wrong."""
    crowd = two_who_disagree()
    crowd.machine = lie("our own")
    job = crowd.submit(batch_spec(3, 1))
    settle(crowd)
    assert not any(crowd.state.standing(provider.account).banned for provider in crowd.providers)
    assert crowd.state.jobs[job].slots
    assert crowd.paid_to(crowd.providers[0]) == 0


@pytest.mark.parametrize("honest", [1, 2])
@pytest.mark.parametrize("liars", [2, 3])
def test_hired_colluders_against_the_honest(liars: int, honest: int) -> None:
    """Tried: be all but one of those whom the job hires, agree on a lie, and outvote that one, or the auditor from
    outside. Gained: what they confirm among themselves while nobody else is asked, and nothing once one is. In doubt
    the machine decides, and they are banned by its word and the honest one's. Cost: their accounts; stake where two
    honest ones were drawn."""
    crooks = [Provider(f"liar{n}", price=900, answer=lie("one lie")) for n in range(liars)]
    crowd = Crowd([*crooks, *honest_crowd(honest)], machine=right)
    job = crowd.submit(batch_spec(20, 3, verify="audit:rate=1"))
    settle(crowd)
    assert crowd.of(t.ReplayTask) or honest == 2
    assert crowd.outcome(job).code == ""
    assert not any(crowd.state.standing(p.account).banned for p in crowd.providers if p not in crooks)
    assert all(crowd.leases[lease][1] in crooks for lease in crowd.slashed)
    assert all(crowd.state.standing(crook.account).banned for crook in crooks)
    if honest > 1 or liars > 2:  # else two hired liars are a quorum before the one honest account is asked
        assert wrong_finals(crowd, job) == 0


def test_after_a_restart_it_is_asked_again_and_a_late_answer_changes_nothing() -> None:
    crowd = two_who_disagree(hold={t.ReplayTask})
    crowd.submit(batch_spec(1, 1))
    settle(crowd, 12)
    (asked, *_) = crowd.of(t.ReplayTask)
    before = len(crowd.of(t.ReplayTask))
    crowd.restart()
    crowd.run()
    assert len(crowd.effects) > before
    crowd.hold.clear()
    crowd.do(asked)
    crowd.do(asked)
    crowd.tell(t.NotReplayed(crowd.now_ms, asked.lease, asked.claim_hash, "too late"))
    settle(crowd)
    assert crowd.state.standing(crowd.providers[0].account).banned


def test_an_ending_job_waits_for_the_machine_as_long_as_for_any_check() -> None:
    crowd = two_who_disagree(hold={t.ReplayTask})
    job = crowd.submit(batch_spec(1, 1))
    settle(crowd, 12)
    assert crowd.of(t.ReplayTask)
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    crowd.run()
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(crowd.timing.audit_within + 1)
    assert crowd.outcome(job).code == "E1402"
    assert sum(crowd.vouchers.values()) == 0


@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_of_things_no_honest_account_is_harmed(seed: int) -> None:
    """Half of all who are there lie, together or each for itself."""
    chance = random.Random(seed)
    liars = [Provider(f"liar{n}", price=900, answer=lie(chance.choice(("a", "b", n)))) for n in range(2)]
    crowd = Crowd([*liars, *honest_crowd(2)], random.Random(seed), machine=right)
    crowd.submit(batch_spec(12, chance.choice((1, 2, 3)), verify="audit:rate=1"))
    settle(crowd)
    assert not any(crowd.state.standing(p.account).banned for p in crowd.providers if p not in liars)
