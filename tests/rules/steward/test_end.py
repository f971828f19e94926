"""How jobs and leases end."""

from __future__ import annotations

import msgspec
import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    batch_spec,
    honest_crowd,
    honest_output,
    lane_spec,
    lie,
    train_spec,
    word,
)

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import view
from fallow.rules.steward.state import Fate, Step
from fallow.rules.trust import Standing


def shown(crowd: Crowd, job: bytes) -> str:
    found = view(crowd.state, job)
    assert found is not None
    return found.phase


def test_a_job_is_done_when_its_leases_are_closed() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.EndLease})
    job = crowd.submit(batch_spec())
    crowd.run()
    assert shown(crowd, job) == "settling"
    assert crowd.outcome(job).code == ""
    for effect in crowd.of(t.EndLease):
        crowd._money(effect)
    crowd.run()
    assert shown(crowd, job) == "done"
    assert crowd.notes("phase")[-1] == "The job is done."


def test_a_bank_that_does_not_answer_holds_nobody_up_for_ever() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.EndLease})
    job = crowd.submit(batch_spec())
    crowd.run()
    crowd.pass_time(61_000)
    assert shown(crowd, job) == "done"
    lease = crowd.of(t.EndLease)[0].lease
    crowd.tell(t.LedgerClosed(crowd.now_ms, lease, 10, 1, 0))
    assert crowd.escrow[lease] == "open"
    assert shown(crowd, job) == "done"


def test_a_lost_providers_lease_is_closed_later_without_the_job_waiting() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(30, 3, verify="none"))
    crowd.run(until=lambda: any(slot.step is Step.FINAL for slot in crowd.state.jobs[job].slots))
    seat = next(s for s in crowd.state.jobs[job].seats if s.money.final_units)
    name = crowd.by_node(seat.node).name
    crowd.away.add(name)
    crowd.queue = [e for e in crowd.queue if getattr(e, "lease", b"") != seat.lease]
    crowd.tell(t.PeerUnobserved(crowd.now_ms, seat.node))
    crowd.pass_time(60_000)
    crowd.pass_time(6_000)
    assert shown(crowd, job) == "done"
    close = next(e for e in crowd.of(t.EndLease) if e.lease == seat.lease)
    assert close.cumulative_ucr == seat.owed_ucr() > 0
    assert crowd.escrow[seat.lease] == "open"
    crowd.now_ms = close.ends_ms
    crowd.do(close)
    crowd.run()
    assert crowd.escrow[seat.lease] == "closed"


@pytest.mark.parametrize("kind", ["batch", "train"])
@pytest.mark.parametrize("moment", [0, 3, 8, 12, 16, 20, 25, 30, 40])
def test_cancel_at_any_moment_pays_what_is_final_and_returns_the_rest(kind: str, moment: int) -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(20) if kind == "batch" else train_spec(rounds=4))
    crowd.run(until=lambda: len(crowd.history) > moment)
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    crowd.run()
    crowd.pass_time(130_000)
    ended = crowd.outcome(job)
    assert ended.code == "E1402"
    assert shown(crowd, job) == "cancelled"
    assert set(crowd.escrow.values()) <= {"closed"}
    state = crowd.state.jobs[job]
    for seat in state.seats:
        runs = [run for slot in state.slots for run in slot.runs if run.seat == seat.number]
        final = sum(run.spec.units for run in runs if run.fate is Fate.FINAL)
        assert not any(run.fate in (Fate.RUNNING, Fate.CLAIMED) for run in runs)
        if seat.lease:
            assert crowd.vouchers.get(seat.lease, 0) == final
    assert crowd.tell(t.UserCancelled(crowd.now_ms, job)) == []


def test_a_cancelled_job_waits_for_checks_under_way_but_not_for_ever() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(batch_spec(1, 3))
    crowd.run()
    assign = crowd.of(t.Assign)[0]
    crowd.tell(crowd.claim(assign.lease, assign.task, honest_output(assign.spec), crowd.leases[assign.lease][1]))
    crowd.run()
    assert len(crowd.of(t.Assign)) == 2
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(119_000)
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(2_000)
    assert crowd.outcome(job).outputs == (None,)
    assert sum(crowd.vouchers.values()) == 0


def test_an_audit_that_comes_after_the_cancel_still_counts() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(batch_spec(1, 3))
    crowd.run()
    first = crowd.of(t.Assign)[0]
    crowd.tell(crowd.claim(first.lease, first.task, honest_output(first.spec), crowd.leases[first.lease][1]))
    crowd.run()
    second = crowd.of(t.Assign)[1]
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    crowd.tell(crowd.claim(second.lease, second.task, honest_output(second.spec), crowd.leases[second.lease][1]))
    crowd.run()
    assert crowd.outcome(job).outputs == (honest_output(first.spec),)
    assert crowd.vouchers == {first.lease: 10, second.lease: 10}


def test_the_deadline_of_a_job() -> None:
    crowd = Crowd([Provider("p", answer=lambda spec, honest: None)])
    job = crowd.submit(msgspec.structs.replace(batch_spec(verify="none"), timeout_s=20))
    crowd.run()
    crowd.pass_time(19_999)
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(1)
    assert crowd.outcome(job).code == "E1404"
    assert shown(crowd, job) == "failed"
    assert crowd.of(t.Cancel)


def test_when_the_budget_runs_out_what_is_done_is_kept() -> None:
    """Checks make the work dearer than the bare tasks that the budget was reckoned for."""
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(20, 3, budget=230, verify="audit:rate=1,probation=0"))
    crowd.run()
    for _ in range(20):
        crowd.pass_time(6_000)
    ended = crowd.outcome(job)
    assert ended.code == "E1401"
    assert any(output is not None for output in ended.outputs)
    assert any(output is None for output in ended.outputs)
    assert 100 < sum(crowd.vouchers.values()) <= 230
    assert any("used up" in text for text in crowd.notes("warning"))
    assert set(crowd.escrow.values()) == {"closed"}


def test_the_closing_check_catches_who_was_never_sampled() -> None:
    liar = Provider("liar", answer=lie(), price=900)
    crowd = Crowd([liar, *honest_crowd(3)])
    job = crowd.submit(batch_spec(16, 4, verify="audit:probation=0,rate=0"))
    crowd.run()
    for _ in range(4):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).outputs == tuple(honest_output(slot.spec) for slot in crowd.state.jobs[job].slots)
    assert crowd.paid_to(liar) == 0


@pytest.mark.parametrize(
    "change",
    [{"verify": "zk"}, {"timeout_s": 0}, {"work": msgspec.structs.replace(batch_spec().work, params=())}],  # pyright: ignore[reportArgumentType]
)
def test_jobs_that_make_no_sense_end_at_once(change: dict[str, object]) -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(msgspec.structs.replace(batch_spec(), **change))
    assert crowd.outcome(job).code == "E2001"
    assert crowd.outcome(job).what
    assert shown(crowd, job) == "failed"
    assert not crowd.of(t.FindOffers)


def test_a_lane_job_ends_well_when_its_time_is_over() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(msgspec.structs.replace(lane_spec(), timeout_s=100))
    crowd.run()
    lease = next(iter(crowd.leases))
    crowd.tell(crowd.lane_claim(lease, 1, 1, 5, 5))
    crowd.run()
    crowd.pass_time(100_000)
    assert crowd.outcome(job).code == ""
    assert shown(crowd, job) == "done"
    assert crowd.vouchers == {lease: 5}


def test_escrow_that_opens_after_the_end_is_closed() -> None:
    crowd = Crowd(honest_crowd(1), hold={t.FundEscrow})
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.run()
    (opening,) = crowd.of(t.FundEscrow)
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    assert crowd.outcome(job).code == "E1402"
    assert shown(crowd, job) == "settling"
    crowd.hold.clear()
    crowd.do(opening)
    crowd.run()
    assert crowd.escrow[opening.lease] == "closed"
    assert shown(crowd, job) == "cancelled"
    assert word("job") == job


LEASE_MS = 3_600_000
DECIDE_MS = LEASE_MS - LEASE_MS // 20


def unfinished_check(passed: int) -> tuple[Crowd, bytes, t.Assign]:
    """A claim whose check takes longer than its lease; its account has passed so many checks before."""
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(msgspec.structs.replace(batch_spec(1, 3, verify="audit:probation=5,rate=1"), timeout_s=100_000))
    crowd.run()
    first = crowd.of(t.Assign)[0]
    terms, provider = crowd.leases[first.lease]
    crowd.state.standings[terms.provider] = Standing(passed)
    crowd.tell(crowd.claim(first.lease, first.task, honest_output(first.spec), provider))
    crowd.run()
    assert len(crowd.of(t.Assign)) == 2
    return crowd, job, first


def test_a_check_that_outlasts_the_lease_is_decided_before_its_end() -> None:
    crowd, _, first = unfinished_check(passed=5)
    crowd.pass_time(DECIDE_MS - 1)
    assert crowd.escrow[first.lease] == "open"
    assert not crowd.of(t.KeepReceipt)
    crowd.pass_time(1)
    (receipt,) = crowd.of(t.KeepReceipt)
    assert (receipt.lease, receipt.check, receipt.paid_ucr) == (first.lease, "cleared", 10)
    assert crowd.vouchers[first.lease] == 10
    assert crowd.escrow[first.lease] == "closed"


def test_whom_nobody_knows_is_not_believed_at_the_end_of_its_lease() -> None:
    crowd, job, first = unfinished_check(passed=0)
    crowd.hold.clear()
    crowd.pass_time(DECIDE_MS)
    for _ in range(4):
        crowd.pass_time(6_000)
    assert crowd.escrow[first.lease] == "closed"
    assert first.lease not in crowd.vouchers
    assert first.lease not in {receipt.lease for receipt in crowd.of(t.KeepReceipt)}
    assert crowd.outcome(job).outputs == (honest_output(first.spec),)


def test_nothing_becomes_final_under_a_lease_that_has_ended() -> None:
    """The steward was away: the escrow may be closed, so a receipt could not tell the truth."""
    crowd, _, first = unfinished_check(passed=5)
    auditor = crowd.of(t.Assign)[1]
    crowd.now_ms += LEASE_MS
    crowd.tell(crowd.claim(auditor.lease, auditor.task, honest_output(auditor.spec), crowd.leases[auditor.lease][1]))
    crowd.run()
    assert not crowd.of(t.KeepReceipt)
    assert first.lease not in crowd.vouchers


@pytest.mark.parametrize(("passed", "paid"), [(5, 5), (0, 0)])
def test_lane_answers_are_decided_before_their_lease_ends(passed: int, paid: int) -> None:
    crowd = Crowd(honest_crowd(3), hold={t.AuditLane})
    crowd.submit(msgspec.structs.replace(lane_spec(verify="audit:rate=1,probation=5"), timeout_s=100_000))
    crowd.run()
    lease = next(iter(crowd.leases))
    crowd.state.standings[crowd.leases[lease][0].provider] = Standing(passed)
    crowd.tell(crowd.lane_claim(lease, 1, 1, 5, 5))
    crowd.run()
    assert crowd.of(t.AuditLane)
    crowd.pass_time(DECIDE_MS)
    assert crowd.escrow[lease] == "closed"
    assert crowd.vouchers.get(lease, 0) == paid == sum(receipt.paid_ucr for receipt in crowd.of(t.KeepReceipt))
    crowd.tell(crowd.lane_claim(lease, 2, 6, 5, 5))
    assert crowd.vouchers.get(lease, 0) == paid
