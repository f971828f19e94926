"""The audit policy at work."""

from __future__ import annotations

import random

import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    batch_spec,
    h,
    honest_crowd,
    honest_output,
    lie,
    train_spec,
)

from fallow.rules.steward import events as t
from fallow.rules.steward.checks.look import seen_of
from fallow.rules.steward.machine import view
from fallow.rules.steward.state import Fate, Mark
from fallow.rules.trust import Reason
from fallow.wire.ledger import Refusal
from fallow.wire.tasks import TaskOutput, TaskSpec


def settle(crowd: Crowd, times: int = 4) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def test_the_first_claims_of_an_account_are_checked() -> None:
    crowd = Crowd(honest_crowd(3))
    crowd.submit(batch_spec(1, 1, verify="audit:probation=3,rate=0"))
    crowd.run()
    assert crowd.executions == 2
    (first, second) = crowd.of(t.KeepReceipt)
    assert first.check == "checked"
    assert first.reason == "2 equal answers of 2"
    assert first.agreeing[0].claim == second.claim
    assert first.paid_ucr == second.paid_ucr == 10


def test_no_probation_no_rate_only_the_closing_check() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(30, 3, verify="audit:probation=0,rate=0"))
    crowd.run()
    assert crowd.outcome(job).code == ""
    assert 30 < crowd.executions <= 33
    checks = [receipt.check for receipt in crowd.of(t.KeepReceipt)]
    assert checks.count("cleared") >= 24
    assert set(checks) == {"checked", "cleared"}


def test_nothing_is_checked_or_drawn_without_a_policy() -> None:
    crowd = Crowd(honest_crowd(3))
    crowd.submit(batch_spec(5, 2, verify="none"))
    crowd.run()
    assert crowd.executions == 5
    assert not crowd.of(t.Draw)
    assert {receipt.check for receipt in crowd.of(t.KeepReceipt)} == {"none"}


def test_a_liar_is_charged_banned_and_paid_nothing() -> None:
    liar = Provider("liar", answer=lie(), price=900)
    crowd = Crowd([liar, *honest_crowd(3)])
    job = crowd.submit(batch_spec(12, 4, verify="audit"))
    settle(crowd)
    ended = crowd.outcome(job)
    assert ended.outputs == tuple(honest_output(slot.spec) for slot in crowd.state.jobs[job].slots)
    (charge,) = crowd.of(t.Charge)
    assert charge.slash_ucr == 500
    assert len(charge.others) == 2
    assert {other.output for other in charge.others} != {charge.accused.output}
    assert crowd.state.standing(liar.account).banned
    assert crowd.paid_to(liar) == 0
    assert len(crowd.notes("caught")) == 2
    shown = view(crowd.state, job)
    assert shown is not None
    assert [(lease.state, lease.slashed_ucr) for lease in shown.leases if lease.account == liar.account] == [
        ("banned", 500)
    ]
    again = crowd.submit(batch_spec(3, 3, verify="audit"), "second job")
    settle(crowd)
    assert crowd.outcome(again).code == ""
    assert all(seat.account != liar.account for seat in crowd.state.jobs[again].seats)


def test_a_ban_reaches_other_jobs() -> None:
    count = [0]

    def turns(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        count[0] += 1
        return honest if count[0] <= 4 else lie()(spec, honest)

    liar = Provider("liar", answer=turns, price=900)
    crowd = Crowd([liar, *honest_crowd(3)], shuffle=random.Random(1))
    jobs = [crowd.submit(batch_spec(30, 4, verify="audit:rate=0.3"), name) for name in ("one", "two")]
    settle(crowd)
    for job in jobs:
        expected = tuple(honest_output(slot.spec) for slot in crowd.state.jobs[job].slots)
        assert crowd.outcome(job).outputs == expected
        assert any(seat.mark is Mark.BANNED for seat in crowd.state.jobs[job].seats)


def test_stakeless_liars_are_banned_without_a_charge_and_refused_charges_are_told() -> None:
    crowd = Crowd([Provider("liar", answer=lie(), price=900, stake=0), *honest_crowd(3)])
    job = crowd.submit(batch_spec(8, 4))
    settle(crowd)
    assert not crowd.of(t.Charge)
    assert crowd.outcome(job).code == ""
    crowd = Crowd([Provider("liar", answer=lie(), price=900), *honest_crowd(3)], refuse_charge=True)
    job = crowd.submit(batch_spec(8, 4))
    settle(crowd)
    assert any("did not accept" in text for text in crowd.notes("warning"))
    assert set(crowd.escrow.values()) == {"closed"}


def test_two_who_disagree_without_a_third_accuse_nobody() -> None:
    crowd = Crowd([Provider("a"), Provider("b", answer=lie())])
    job = crowd.submit(batch_spec(1, 2, verify="audit:probation=9"))
    settle(crowd, 40)
    assert not crowd.of(t.Charge)
    assert not any(standing.banned for standing in crowd.state.standings.values())
    assert crowd.outcome(job).code == "E1403"
    assert sum(crowd.vouchers.values()) == 0


def test_a_crowd_of_different_liars_is_undecided_and_nobody_is_banned() -> None:
    crowd = Crowd([Provider(f"l{n}", answer=lie(n)) for n in range(6)])
    job = crowd.submit(batch_spec(1, 6, verify="audit"))
    settle(crowd, 60)
    assert any("nobody can decide" in text for text in crowd.notes("check"))
    assert not any(standing.banned for standing in crowd.state.standings.values())
    assert crowd.outcome(job).code == "E1403"


def test_one_provider_alone_is_not_checked_and_the_user_is_told() -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(batch_spec(4, 1))
    crowd.run()
    assert not crowd.vouchers or crowd.state.jobs[job].reported
    assert crowd.outcome(job).code == ""
    assert {receipt.check for receipt in crowd.of(t.KeepReceipt)} == {"unchecked"}
    assert {receipt.reason for receipt in crowd.of(t.KeepReceipt)} == {"no other provider could check it"}
    assert len(crowd.notes("warning")) == 2
    assert sum(crowd.vouchers.values()) == 40


def test_an_account_with_many_machines_cannot_confirm_itself() -> None:
    twins = [Provider(f"t{n}", account_name="twin", answer=lie(), price=1) for n in range(3)]
    crowd = Crowd([*twins, *honest_crowd(2)])
    job = crowd.submit(batch_spec(6, 5))
    settle(crowd)
    assert crowd.outcome(job).outputs == tuple(honest_output(s.spec) for s in crowd.state.jobs[job].slots)
    assert all(crowd.paid_to(twin) == 0 for twin in twins)


def test_the_drawn_auditor_is_waited_for() -> None:
    """Being busy is no way to be passed over: the order is the seed's alone."""
    crowd = Crowd(honest_crowd(4), hold={t.Assign})
    job = crowd.submit(batch_spec(16, 4, verify="audit:rate=1,probation=0"))
    crowd.run()
    seats = crowd.state.jobs[job].seats
    first = crowd.of(t.Assign)[0]
    claim = crowd.claim(first.lease, first.task, honest_output(first.spec), crowd.leases[first.lease][1])
    crowd.tell(claim)
    crowd.tell(t.AuditorsDrawn(crowd.now_ms, claim.claim_hash, h(3)))
    slot = crowd.state.jobs[job].slots[crowd.state.jobs[job].tasks[first.task]]
    assert seen_of(slot).reason is Reason.SAMPLED
    crowd.run()  # nobody is left to be hired for the check alone
    (called,) = seen_of(slot).called
    assert all(len(seat.running) == 4 for seat in seats if seat.account == called)
    busy = next(seat for seat in seats if seat.account == called)
    task = next(iter(busy.running))
    spec = next(e.spec for e in crowd.of(t.Assign) if e.task == task)
    effects = crowd.tell(crowd.claim(busy.lease, task, honest_output(spec), crowd.leases[busy.lease][1]))
    assert t.Assign in {type(effect) for effect in effects}
    assert [run.account for run in slot.runs if run.fate is Fate.RUNNING] == [called]


def test_a_refused_draw_means_a_check() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Draw})
    job = crowd.submit(batch_spec(1, 3, verify="audit:rate=0,probation=0"))
    crowd.run()
    (draw,) = crowd.of(t.Draw)
    crowd.tell(t.LedgerRefusedDraw(crowd.now_ms, draw.claim_hash, Refusal.NO_ESCROW))
    crowd.tell(t.LedgerRefusedDraw(crowd.now_ms, draw.claim_hash, Refusal.NO_ESCROW))
    crowd.run()
    assert crowd.executions == 2
    assert crowd.outcome(job).code == ""


def test_the_window_clears_old_claims_while_the_job_goes_on() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(60, 3, verify="audit:rate=0.5,window=1"))
    crowd.run(until=lambda: any(receipt.check == "cleared" for receipt in crowd.of(t.KeepReceipt)))
    assert not crowd.state.jobs[job].reported
    crowd.run()
    assert crowd.outcome(job).code == ""


def test_who_withholds_what_a_check_needs_is_not_paid_for_it() -> None:
    """A cheat keeps its optimiser's state to itself, so that nobody can redo its next round."""

    miser = Provider("miser", price=900)
    crowd = Crowd([miser, *honest_crowd(3)])
    real = crowd.do

    def do(effect: t.StewardEffect) -> None:
        if isinstance(effect, t.KeepBlob) and effect.part.name == "carry" and miser.address in effect.sources:
            crowd.say(t.BlobMissing(crowd.now_ms, effect.job, effect.part.blob))
        else:
            real(effect)

    crowd.do = do  # pyright: ignore[reportAttributeAccessIssue]
    job = crowd.submit(train_spec(workers=4, rounds=4, verify="audit:rate=1"))
    settle(crowd, 6)
    assert crowd.outcome(job).code == ""
    slots = crowd.state.jobs[job].slots
    assert any(attempt.code == "E1602" for slot in slots for attempt in slot.attempts)
    assert not crowd.state.standing(miser.account).banned


@pytest.mark.parametrize("quorum", [2, 3])
def test_a_pair_of_colluders_loses_against_the_honest(quorum: int) -> None:
    crowd = Crowd([Provider("l0", answer=lie(7)), *honest_crowd(5)])
    job = crowd.submit(batch_spec(20, 6, verify=f"audit:quorum={quorum},rate=0.5"))
    settle(crowd)
    assert crowd.outcome(job).outputs == tuple(honest_output(s.spec) for s in crowd.state.jobs[job].slots)
    honest = [provider for provider in crowd.providers if provider.name.startswith("p")]
    assert not any(crowd.state.standing(provider.account).banned for provider in honest)
