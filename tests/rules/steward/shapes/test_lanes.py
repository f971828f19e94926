"""Lanes: readiness, batches, their checks and their pay."""

from __future__ import annotations

import msgspec
from tests.rules.steward.crowd import Crowd, Provider, honest_crowd, lane_spec, ready_seats, word

from fallow.rules.steward import events as t
from fallow.rules.steward.checks.standing import policy_of
from fallow.rules.steward.machine import outstanding, view
from fallow.rules.steward.shapes import lanes as shape
from fallow.rules.steward.state import Mark
from fallow.wire.ledger import Refusal
from fallow.wire.local import JobSpec, ServeJob
from fallow.wire.messages import EXACT


def lanes(crowd: Crowd, replicas: int = 2, verify: str = "audit:rate=0", budget: int = 10_000_000) -> bytes:
    job = crowd.submit(lane_spec(replicas, budget, verify))
    crowd.run()
    return job


def test_a_lane_job_keeps_its_replicas_and_enough_to_decide_a_dispute() -> None:
    crowd = Crowd(honest_crowd(5))
    job = lanes(crowd)
    seats = ready_seats(crowd.state, job)
    assert len(seats) == 3
    assert all(seat.room_units() > 1_000_000 for seat in seats)
    assert ready_seats(crowd.state, word("none")) == []
    node = seats[0].peer.node
    crowd.tell(t.PeerUnobserved(crowd.now_ms, node))
    assert len(ready_seats(crowd.state, job)) == 2
    crowd.pass_time(61_000)
    crowd.pass_time(6_000)
    assert len(ready_seats(crowd.state, job)) == 3
    assert node not in {seat.peer.node for seat in ready_seats(crowd.state, job)}


def test_a_served_model_is_loaded_before_it_answers() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.PrepareLane})
    work = ServeJob("m", word("model"), b"", 1, 256)
    job = crowd.submit(JobSpec(work, 10_000_000, 0, 1, verify="none"))
    crowd.run()
    (prepare,) = crowd.of(t.PrepareLane)
    assert prepare.work == work
    assert ready_seats(crowd.state, job) == []
    assert prepare in outstanding(crowd.state)
    crowd.tell(t.LaneLoaded(crowd.now_ms, prepare.lease))
    assert len(ready_seats(crowd.state, job)) == 1
    assert crowd.tell(t.LaneLoaded(crowd.now_ms, prepare.lease)) == []
    shown = view(crowd.state, job)
    assert shown is not None
    assert (shown.kind, shown.served_name) == ("serve", "m")


def test_exact_answers_are_checked_by_unlike_machines_and_asked_of_those_that_compute_exactly() -> None:
    machines = [Provider("a", numerics="x86"), Provider("b", numerics="arm"), Provider("c", numerics="gpu")]
    odd = Provider("d", exact="its products differ", price=1)
    for arithmetic, classes in (("exact", {"x86", "arm", "gpu"}), ("fp32", {"x86"})):
        crowd = Crowd([*machines, odd, Provider("e", numerics="x86")], hold={t.PrepareLane})
        work = ServeJob("m", word("model"), b"", 1, 256, arithmetic)
        job = crowd.submit(JobSpec(work, 100_000_000, 0, 1, verify="audit:quorum=3"))
        crowd.run()
        seats = [crowd.state.jobs[job].seats[number] for number in crowd.state.jobs[job].live]
        assert {seat.offer.hardware.numerics for seat in seats} == classes
        assert any(seat.offer.hardware.exact != EXACT for seat in seats) is (arithmetic == "fp32")
        assert policy_of(crowd.state.jobs[job]).rate_ppm == 100_000  # not that of training, where a check is cheap


def test_a_model_that_nobody_can_load_ends_the_job() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.PrepareLane})
    job = lanes(crowd, verify="none")
    first, second = [effect.lease for effect in crowd.of(t.PrepareLane)][:2]
    crowd.tell(t.LaneUnready(crowd.now_ms, first, "E1704", "died", retryable=True))
    assert crowd.state.jobs[job].ending is None
    crowd.tell(t.LaneUnready(crowd.now_ms, second, "E1701", "not a model", retryable=False))
    assert crowd.state.jobs[job].ending is None
    crowd.pass_time(6_000)
    third = crowd.of(t.PrepareLane)[-1].lease
    assert third not in (first, second)
    crowd.tell(t.LaneUnready(crowd.now_ms, third, "E1701", "not a model", retryable=False))
    assert crowd.outcome(job).code == "E1403"
    assert crowd.tell(t.LaneUnready(crowd.now_ms, third, "E1701", "again", retryable=False)) == []


def test_the_only_provider_may_condemn_a_model_alone() -> None:
    crowd = Crowd(honest_crowd(1), hold={t.PrepareLane})
    job = lanes(crowd, verify="none")
    (prepare,) = crowd.of(t.PrepareLane)
    crowd.tell(t.LaneUnready(crowd.now_ms, prepare.lease, "E1701", "not a model", retryable=False))
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(6_000)
    assert crowd.outcome(job).code == "E1403"


def test_batches_on_probation_are_checked_then_paid() -> None:
    crowd = Crowd(honest_crowd(3))
    lanes(crowd)
    lease = next(iter(crowd.leases))
    crowd.tell(crowd.lane_claim(lease, 1, 1, 100, 100))
    crowd.run()
    (audit,) = crowd.of(t.AuditLane)
    assert len(audit.indexes) == 1
    assert len(audit.auditors) == 2
    assert crowd.vouchers == {lease: 100}
    (receipt,) = crowd.of(t.KeepReceipt)
    assert (receipt.check, receipt.reason, receipt.spec) == ("checked", "1 of 100 done again with equal answers", None)


def test_a_batch_is_counted_once() -> None:
    crowd = Crowd(honest_crowd(3))
    lanes(crowd)
    lease = next(iter(crowd.leases))
    claim = crowd.lane_claim(lease, 1, 1, 100, 100)
    crowd.tell(claim)
    crowd.run()
    assert crowd.tell(claim) == []
    assert crowd.tell(msgspec.structs.replace(claim, sequence=1, claim_hash=word("other"))) == []
    audited = t.LaneAudited(crowd.now_ms, lease, claim.claim_hash, ())
    assert crowd.tell(audited) == []
    assert crowd.vouchers == {lease: 100}


def test_unsampled_batches_wait_for_the_end() -> None:
    crowd = Crowd(honest_crowd(3))
    job = lanes(crowd, verify="audit:rate=0,probation=0")
    lease = next(iter(crowd.leases))
    for number in range(4):
        crowd.tell(crowd.lane_claim(lease, number + 1, 1 + 10 * number, 10, 10))
    crowd.run()
    assert crowd.vouchers == {}
    crowd.tell(t.PeerLeaving(crowd.now_ms, lease, 9, "owner"))
    crowd.run()
    assert len(crowd.of(t.AuditLane)) == 1
    assert crowd.vouchers[lease] == 40
    assert crowd.escrow[lease] == "closed"
    assert crowd.state.jobs[job].ending is None


def test_lies_on_a_lane_are_charged_and_nothing_unchecked_is_paid() -> None:
    crowd = Crowd(honest_crowd(3))
    lanes(crowd, verify="audit:rate=0.01,probation=1")
    lease = next(iter(crowd.leases))
    crowd.tell(crowd.lane_claim(lease, 1, 1, 10, 10))
    crowd.run()
    crowd.lane_bad.add(lease)
    for number in range(2, 5):
        crowd.tell(crowd.lane_claim(lease, number, number * 100, 100, 100))
    crowd.run()
    assert crowd.vouchers == {lease: 10}
    assert crowd.slashed == {lease: 500}
    assert crowd.state.standing(crowd.leases[lease][1].account).banned
    assert crowd.escrow[lease] == "closed"
    late = crowd.lane_claim(lease, 9, 900, 10, 10)
    assert not any(isinstance(effect, t.Pay) for effect in crowd.tell(late))


def test_batches_nobody_can_check_stay_provisional() -> None:
    crowd = Crowd([Provider("a"), Provider("b")])
    job = lanes(crowd)
    lease = next(iter(crowd.leases))
    crowd.lane_bad.add(lease)
    crowd.tell(crowd.lane_claim(lease, 1, 1, 10, 10))
    crowd.run()
    assert crowd.vouchers == {}
    assert any("could not be checked" in text for text in crowd.notes("warning"))
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    crowd.run()
    assert crowd.vouchers.get(lease, 0) == 0
    alone = Crowd([Provider("a")])
    lanes(alone)
    lease = next(iter(alone.leases))
    alone.tell(alone.lane_claim(lease, 1, 1, 10, 10))
    alone.run()
    assert any("no other provider" in text for text in alone.notes("warning"))
    alone.tell(t.PeerLeaving(alone.now_ms, lease, 9, "owner"))
    alone.run()
    assert alone.vouchers == {lease: 10}
    assert alone.of(t.KeepReceipt)[0].check == "unchecked"


def test_a_refused_draw_is_a_check() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Draw})
    lanes(crowd, verify="audit:rate=0,probation=1")
    lease = next(iter(crowd.leases))
    crowd.state.standings[crowd.leases[lease][1].account] = crowd.state.standing(b"")._replace(passed=5)
    claim = crowd.lane_claim(lease, 1, 1, 10, 10)
    crowd.tell(claim)
    crowd.tell(t.LedgerRefusedDraw(crowd.now_ms, claim.claim_hash, Refusal.NO_ESCROW))
    assert len(crowd.of(t.AuditLane)) == 1


def test_a_lane_whose_cap_is_used_up_is_replaced_and_never_overpaid() -> None:
    crowd = Crowd(honest_crowd(3))
    job = lanes(crowd, verify="none", budget=1_000, replicas=1)
    lease = next(iter(crowd.leases))
    cap = crowd.leases[lease][0].cap_ucr
    crowd.tell(crowd.lane_claim(lease, 1, 1, 10**6, 10**6))
    crowd.run()
    crowd.pass_time(6_000)
    assert crowd.vouchers[lease] == cap
    assert crowd.escrow[lease] == "closed"
    assert len(ready_seats(crowd.state, job)) == 1
    for _ in range(40):
        for seat in ready_seats(crowd.state, job):
            crowd.tell(crowd.lane_claim(seat.lease, crowd.now_ms, 1, 10**6, 10**6))
        crowd.run()
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == "E1401"
    assert sum(crowd.vouchers.values()) <= 1_000


def test_too_many_unsettled_batches_end_the_lease(monkeypatch: object) -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Draw})
    lanes(crowd)
    lease = next(iter(crowd.leases))
    limit, shape.MAX_BATCHES = shape.MAX_BATCHES, 3
    try:
        for number in range(3):
            crowd.tell(crowd.lane_claim(lease, number + 1, 1 + number, 1, 1))
    finally:
        shape.MAX_BATCHES = limit
    found = crowd.state.seat_of(lease)
    assert found is not None
    assert found[1].mark is Mark.FULL


def test_the_end_of_a_budget_is_not_cut_into_ever_smaller_leases() -> None:
    crowd = Crowd(honest_crowd(4))
    job = lanes(crowd, replicas=1, verify="none", budget=16_000)
    told: dict[bytes, int] = {}
    for _ in range(400):
        usable = [seat for seat in crowd.state.jobs[job].seats if seat.usable]
        if not usable:
            crowd.pass_time(6_000)
        for seat in usable:
            told[seat.lease] = told.get(seat.lease, 0) + 1
            number, units = told[seat.lease], max(1, seat.room_units() // 2)
            crowd.tell(crowd.lane_claim(seat.lease, number, number, 1, units))
            crowd.run()
        if crowd.of(t.JobEnded):
            break
    assert crowd.outcome(job).code == "E1401"
    assert len(crowd.leases) <= 10
    assert min(terms.cap_ucr for terms, _ in crowd.leases.values()) >= 16_000 // 32
    assert sum(crowd.vouchers.values()) > 14_000
