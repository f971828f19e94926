"""The machine as a whole: what it ignores, and what a day with it looks like."""

from __future__ import annotations

from tests.rules.steward.crowd import IDENTITY, Crowd, batch_spec, honest_crowd, train_spec, word

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, due, next_due_ms, outstanding, transition, view
from fallow.wire.documents import Signed
from fallow.wire.ledger import Refusal
from fallow.wire.tasks import TaskOutput

SEAL = Signed(b"", bytes(65))
NOWHERE = word("nowhere")


def test_what_speaks_of_nothing_known_is_dropped() -> None:
    state = State()
    transition(state, t.StewardStarted(5, IDENTITY))
    for event in (
        t.UserCancelled(6, NOWHERE),
        t.OffersGathered(6, NOWHERE, ()),
        t.PeerDeclined(6, NOWHERE, 3, ()),
        t.LedgerOpened(6, NOWHERE),
        t.LedgerRefusedEscrow(6, NOWHERE, Refusal.BALANCE_TOO_SMALL),
        t.PeerClaimed(6, NOWHERE, 1, NOWHERE, TaskOutput(b"", ()), NOWHERE, SEAL, NOWHERE, ()),
        t.PeerFailed(6, NOWHERE, 1, NOWHERE, "E1704", "", retryable=True),
        t.AuditorsDrawn(6, NOWHERE, NOWHERE),
        t.BlobKept(6, NOWHERE, NOWHERE),
        t.PeerClaimedBatch(6, NOWHERE, 1, SEAL, NOWHERE, 1, 1, 1),
        t.LedgerClosed(6, NOWHERE, 1, 1, 1),
        t.PeerUnobserved(6, NOWHERE),
        t.PeerObserved(6, NOWHERE),
        t.ClockTicked(6),
    ):
        assert transition(state, event) == []
    assert (state.jobs, state.leases, state.roll.since, state.now_ms) == ({}, {}, {}, 6)
    assert outstanding(state) == []
    assert next_due_ms(state) is None
    assert not due(state, 10**12)


def test_seats_that_do_not_exist_are_nobodys() -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(batch_spec())
    assert crowd.tell(t.PeerDeclined(crowd.now_ms, job, 0, ())) == []
    crowd.run()
    assert crowd.tell(t.PeerDeclined(crowd.now_ms, job, 99, ())) == []


def test_submitting_twice_is_one_job() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec())
    assert crowd.tell(t.UserSubmitted(crowd.now_ms, job, train_spec())) == []
    assert crowd.state.jobs[job].spec == batch_spec()


def test_time_never_runs_backwards() -> None:
    crowd = Crowd([])
    crowd.tell(t.ClockTicked(crowd.now_ms + 50))
    crowd.tell(t.ClockTicked(crowd.now_ms - 50))
    assert crowd.state.now_ms == crowd.now_ms + 50


def test_jobs_run_side_by_side() -> None:
    crowd = Crowd(honest_crowd(4))
    jobs = [crowd.submit(spec, name) for name, spec in (("a", batch_spec()), ("b", train_spec()), ("c", batch_spec(9)))]
    crowd.run()
    for job in jobs:
        assert crowd.outcome(job).code == ""
        shown = view(crowd.state, job)
        assert shown is not None
        assert shown.phase == "done"
    assert crowd.state.claims == {}


def test_ticks_are_due_when_something_waits_for_time() -> None:
    crowd = Crowd([])
    job = crowd.submit(batch_spec())
    crowd.run()
    assert next_due_ms(crowd.state) == crowd.now_ms + 5_000
    assert due(crowd.state, crowd.now_ms + 5_000)
    assert not due(crowd.state, crowd.now_ms + 4_999)
    while not crowd.of(t.JobEnded):
        moment = next_due_ms(crowd.state)
        assert moment is not None
        crowd.pass_time(moment - crowd.now_ms)
    assert crowd.outcome(job).code == "E1201"
    assert next_due_ms(crowd.state) is None
