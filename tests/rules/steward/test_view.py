"""A job as people see it."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd, lane_spec, word

from fallow.rules.steward import events as t
from fallow.rules.steward.view import view
from fallow.wire import codec
from fallow.wire.local import JobView, LeaseView


def look(crowd: Crowd, job: bytes) -> JobView:
    found = view(crowd.state, job)
    assert found is not None
    assert codec.decode(JobView, codec.encode(found)) == found
    return found


def leases(crowd: Crowd, job: bytes) -> list[LeaseView]:
    return list(look(crowd, job).leases)


def test_unknown_jobs_have_no_view() -> None:
    assert view(Crowd([]).state, word("x")) is None


def test_money_at_every_moment() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(10))
    while crowd.queue:
        crowd.tell(crowd.queue.pop(0))
        shown = look(crowd, job)
        opened = sum(terms.cap_ucr for lease, (terms, _) in crowd.leases.items() if lease in crowd.escrow)
        assert shown.spent_ucr + shown.locked_ucr <= min(opened, shown.budget_ucr)
    shown = look(crowd, job)
    assert (shown.done, shown.total, shown.locked_ucr) == (10, 10, 0)
    assert shown.spent_ucr == sum(crowd.vouchers.values())
    assert (shown.kind, shown.phase, shown.failure) == ("batch", "done", "")
    assert sum(lease.units_final for lease in shown.leases) == shown.spent_ucr


def test_the_states_of_leases() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(lane_spec())
    crowd.tell(crowd.queue.pop(0))
    assert {lease.state for lease in leases(crowd, job)} == {"offered"}
    crowd.run()
    assert [lease.state for lease in leases(crowd, job)] == ["open"] * 3
    first, second, third = leases(crowd, job)
    crowd.hold = {t.EndLease, t.FindOffers}
    crowd.tell(t.PeerUnobserved(crowd.now_ms, first.node))
    crowd.tell(t.PeerLeaving(crowd.now_ms, second.lease, 1, "owner"))
    crowd.tell(t.LedgerClosed(crowd.now_ms, third.lease, 0, 9, 0))
    assert [lease.state for lease in leases(crowd, job)] == ["unobserved", "leaving", "closed"]
    crowd.pass_time(60_000)
    assert leases(crowd, job)[0].state == "lost"
    assert look(crowd, job).total == 0
