"""Money: only final units, once, within the cap."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, Provider, batch_spec, honest_crowd

from fallow.rules.steward import events as t


def test_vouchers_grow_with_final_units_and_receipts_add_up() -> None:
    crowd = Crowd([Provider("p", price=333)])
    crowd.submit(batch_spec(7, 1, verify="none"))
    crowd.run()
    amounts = [effect.cumulative_ucr for effect in crowd.of(t.Pay)]
    assert amounts == sorted(set(amounts))
    assert amounts[-1] == 24  # 70 units at 333 per 1,000, rounded up once and not seven times
    assert sum(receipt.paid_ucr for receipt in crowd.of(t.KeepReceipt)) == 24
    (close,) = crowd.of(t.EndLease)
    assert close.cumulative_ucr == 24


def test_free_work_needs_no_voucher() -> None:
    crowd = Crowd([Provider("p", price=0)])
    job = crowd.submit(batch_spec(3, 1, budget=0, verify="none"))
    crowd.run()
    assert crowd.outcome(job).code == ""
    assert not crowd.of(t.Pay)


def test_a_provider_that_closes_early_gets_no_more() -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(batch_spec(40, 1))
    crowd.run(until=lambda: any(seat.claims for seat in crowd.state.jobs[job].seats))
    seat = crowd.state.jobs[job].seats[0]
    crowd.tell(t.LedgerClosed(crowd.now_ms, seat.lease, 0, seat.leased.cap_ucr, 0))
    crowd.queue = [event for event in crowd.queue if getattr(event, "lease", b"") != seat.lease]
    crowd.run()
    crowd.pass_time(6_000)
    crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert not any(effect.lease == seat.lease for effect in crowd.of(t.Pay))
    assert seat.committed_ucr == 0
