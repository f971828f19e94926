"""Tasks on leases: claims, failures, absences, blobs."""

from __future__ import annotations

import msgspec
import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    batch_spec,
    honest_crowd,
    honest_output,
    train_spec,
    word,
)

from fallow.rules.steward import events as t
from fallow.rules.steward.slots import MAX_STRIKES
from fallow.rules.steward.state import Fate, Mark, Step
from fallow.wire.tasks import TaskOutput


def start(crowd: Crowd, tasks: int = 4, workers: int = 2, verify: str = "none") -> bytes:
    job = crowd.submit(batch_spec(tasks, workers, verify=verify))
    crowd.run(until=lambda: bool(crowd.of(t.Assign)) and not any(isinstance(e, t.LedgerOpened) for e in crowd.queue))
    return job


def test_a_claim_is_taken_once() -> None:
    crowd = Crowd(honest_crowd(2))
    job = start(crowd)
    claim = next(e for e in crowd.queue if isinstance(e, t.PeerClaimed))
    crowd.run()
    assert crowd.tell(claim) == []
    assert crowd.tell(msgspec.structs.replace(claim, sequence=0, claim_hash=word("new"))) == []
    assert sum(crowd.vouchers.values()) == 40
    assert crowd.outcome(job).outputs == tuple(honest_output(slot.spec) for slot in crowd.state.jobs[job].slots)


def test_claims_for_what_was_not_asked_are_worth_nothing() -> None:
    crowd = Crowd(honest_crowd(2))
    start(crowd)
    claim = next(e for e in crowd.queue if isinstance(e, t.PeerClaimed))
    other = next(lease for lease in crowd.leases if lease != claim.lease)
    assert crowd.tell(msgspec.structs.replace(claim, task=word("else"))) == []
    assert crowd.tell(msgspec.structs.replace(claim, lease=word("no lease"))) == []
    assert crowd.tell(msgspec.structs.replace(claim, lease=other)) == []


def test_one_claim_hash_is_good_for_one_task() -> None:
    crowd = Crowd(honest_crowd(3))
    start(crowd, verify="audit")
    first, second = [e for e in crowd.queue if isinstance(e, t.PeerClaimed)][:2]
    crowd.tell(first)
    assert crowd.tell(msgspec.structs.replace(second, claim_hash=first.claim_hash)) == []


def test_a_failed_task_moves_and_people_are_told() -> None:
    bad = Provider("bad", fails="E1704", price=1)
    crowd = Crowd([bad, *honest_crowd(2)])
    job = crowd.submit(batch_spec(3, 2, verify="none"))
    crowd.run()
    assert crowd.outcome(job).code == ""
    assert crowd.notes("failed")
    assert crowd.paid_to(bad) == 0


def test_a_provider_that_keeps_failing_is_given_up() -> None:
    bad = Provider("bad", fails="E1704", price=1)
    crowd = Crowd([bad, *honest_crowd(1)])
    job = crowd.submit(batch_spec(8, 2, verify="none"))
    crowd.run()
    assert any(seat.mark is Mark.LEAVING and seat.strikes >= 3 for seat in crowd.state.jobs[job].seats)
    assert crowd.outcome(job).code == ""


def test_two_providers_that_say_so_condemn_the_work() -> None:
    crowd = Crowd([Provider(f"p{n}", fails="E1701", retryable=False) for n in range(3)])
    job = crowd.submit(batch_spec(1, 2, verify="none"))
    crowd.run()
    assert crowd.outcome(job).code == "E1403"
    assert sum(crowd.vouchers.values()) == 0
    assert set(crowd.escrow.values()) == {"closed"}


def test_the_only_provider_gets_a_failed_task_again_under_another_id() -> None:
    crowd = Crowd([Provider("only", fails="E1704")])
    job = crowd.submit(batch_spec(1, 1, verify="none"))
    crowd.run(until=lambda: len(crowd.of(t.Assign)) == 2)
    first, second = crowd.of(t.Assign)
    assert first.task != second.task
    assert second.spec.timeout_s == first.spec.timeout_s + 1
    crowd.providers[0].fails = ""
    crowd.run()
    assert crowd.outcome(job).code == ""


def test_unobserved_is_not_dead_until_the_deadline() -> None:
    crowd = Crowd(honest_crowd(2), hold={t.Assign}, timing=t.Timing(lost_after=20_000))
    job = start(crowd, 2)
    lost = crowd.of(t.Assign)[0]
    node = crowd.leases[lost.lease][1].address.node
    crowd.tell(t.PeerUnobserved(crowd.now_ms, node))
    crowd.tell(t.PeerUnobserved(crowd.now_ms, word("stranger")))
    crowd.pass_time(19_000)
    crowd.tell(t.PeerUnobserved(crowd.now_ms, node))
    assert all(seat.mark is Mark.NONE for seat in crowd.state.jobs[job].seats)
    crowd.tell(t.PeerObserved(crowd.now_ms, node))
    crowd.pass_time(19_000)
    crowd.tell(t.PeerUnobserved(crowd.now_ms, node))
    before = len(crowd.of(t.Assign))
    crowd.pass_time(20_000)
    seat = next(s for s in crowd.state.jobs[job].seats if s.node == node)
    assert seat.mark is Mark.LOST
    moved = crowd.of(t.Assign)[before:]
    assert {effect.task for effect in moved} >= {lost.task}
    assert all(crowd.leases[effect.lease][1].address.node != node for effect in moved)


def test_a_leaving_provider_is_paid_for_what_it_did() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(40, 2, verify="none"))
    crowd.run(until=lambda: any(slot.step is Step.FINAL for slot in crowd.state.jobs[job].slots))
    seat = next(s for s in crowd.state.jobs[job].seats if s.money.final_units)
    crowd.tell(t.PeerLeaving(crowd.now_ms, seat.lease, seat.sequence + 1, "the owner is back"))
    assert not seat.running
    assert crowd.tell(t.PeerLeaving(crowd.now_ms, seat.lease, seat.sequence, "again")) == []
    crowd.run()
    crowd.pass_time(6_000)
    assert crowd.escrow[seat.lease] == "closed"
    assert crowd.vouchers[seat.lease] == seat.money.final_units
    assert crowd.outcome(job).code == ""


def test_a_slow_task_moves() -> None:
    slow = Provider("slow", answer=lambda spec, honest: None, price=1)
    crowd = Crowd([slow, *honest_crowd(1)])
    job = crowd.submit(batch_spec(2, 2, verify="none"))
    crowd.run()
    crowd.pass_time(91_000)
    assert crowd.of(t.Cancel)
    assert any("too long" in text for text in crowd.notes("failed"))
    crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert crowd.paid_to(slow) == 0


def test_time_while_the_steward_was_away_is_nobodys_fault() -> None:
    slow = Provider("slow", answer=lambda spec, honest: None)
    crowd = Crowd([slow])
    crowd.submit(batch_spec(1, 1, verify="none"))
    crowd.run()
    crowd.now_ms += 1_000_000
    crowd.restart()
    assert not crowd.notes("failed")
    crowd.pass_time(61_000)
    assert crowd.state.jobs[word("job")].seats[0].mark is Mark.LOST


def test_outputs_must_be_here_before_they_count() -> None:
    thief = Provider("thief", serves_blobs=False, price=1)
    crowd = Crowd([thief, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=3, verify="none"))
    crowd.run()
    for _ in range(3):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    runs = [run for slot in crowd.state.jobs[job].slots for run in slot.runs]
    assert any(run.fate is Fate.VOID for run in runs)
    assert crowd.paid_to(thief) == 0


def test_blobs_nobody_asked_for_change_nothing() -> None:
    crowd = Crowd(honest_crowd(2))
    job = start(crowd)
    assert crowd.tell(t.BlobKept(crowd.now_ms, job, word("x"))) == []
    assert crowd.tell(t.BlobMissing(crowd.now_ms, job, word("x"))) == []


def test_a_closed_escrow_stops_the_work_there() -> None:
    crowd = Crowd(honest_crowd(2), hold={t.Assign})
    job = start(crowd, 2)
    assigned = crowd.of(t.Assign)[0]
    effects = crowd.tell(t.LedgerClosed(crowd.now_ms, assigned.lease, 0, 5, 0))
    assert any(isinstance(e, t.Cancel) and e.task == assigned.task for e in effects)
    assert any(isinstance(e, t.Assign) and e.task == assigned.task for e in effects)
    assert crowd.tell(t.LedgerClosed(crowd.now_ms, assigned.lease, 0, 5, 0)) == []
    assert crowd.state.jobs[job].ending is None


def test_equal_params_are_two_tasks() -> None:
    crowd = Crowd(honest_crowd(1))
    spec = batch_spec(2, 1, verify="none")
    twin = msgspec.structs.replace(spec.work, params=(b"same", b"same"))  # pyright: ignore[reportArgumentType]
    job = crowd.submit(msgspec.structs.replace(spec, work=twin))
    crowd.run()
    assert len({e.task for e in crowd.of(t.Assign)}) == 2
    assert crowd.outcome(job).code == ""


@pytest.mark.parametrize("verify", ["none", "audit"])
def test_a_malformed_training_claim_is_no_contribution(verify: str) -> None:
    junk = Provider("junk", answer=lambda spec, honest: TaskOutput(b"junk", ()), price=1)
    crowd = Crowd([junk, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=3, verify=verify))
    crowd.run()
    for _ in range(3):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert crowd.paid_to(junk) == 0


def test_tasks_that_end_because_the_owner_came_back_are_not_held_against_the_provider() -> None:
    crowd = Crowd(honest_crowd(1), hold={t.Assign})
    job = crowd.submit(batch_spec(8, workers=1, verify="none"))
    crowd.run()
    under_way = crowd.of(t.Assign)
    assert len(under_way) > MAX_STRIKES
    for number, assign in enumerate(under_way, 1):
        failure = (assign.lease, number, assign.task, "E1206", "somebody typed", True)
        crowd.tell(t.PeerFailed(crowd.now_ms, *failure))
    crowd.tell(t.PeerLeaving(crowd.now_ms, under_way[0].lease, len(under_way) + 1, "somebody typed"))
    crowd.hold.clear()
    for _ in range(4):
        crowd.pass_time(6_000)
    assert crowd.notes("failed") == []
    assert crowd.outcome(job).code == ""
