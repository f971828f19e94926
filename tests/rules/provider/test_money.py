"""Escrow, credit, vouchers and closing."""

from __future__ import annotations

import pytest
from tests.rules.provider.provider_play import ANNA_NODE, EVE, SIGNED, START_MS, Play, kinds, spec

from fallow.rules.provider import events as t
from fallow.rules.provider.money import allowance_units
from fallow.wire.messages import LeaseLeaving

TIGHT = t.ProviderPolicy(credit_ucr=15)


def test_a_requester_that_never_opens_the_escrow_gets_no_work_and_blocks_nothing() -> None:
    play = Play()
    lease = play.sign(cpu_millis=4_000)
    play.assign(lease, spec(1))
    assert play.later(59_999) == []
    effects = play.later(1)
    assert kinds(effects) == ["StopLease", "EmitEvent", "EmitEvent", "ReleaseEscrow"]
    assert effects[2].body == LeaseLeaving("the escrow was not opened in time")
    assert play.put(t.LedgerOpened, lease) == []
    play.put(t.LedgerClosed, lease)
    assert play.outstanding() == []


def test_work_pauses_at_the_credit_bound_and_goes_on_when_paid() -> None:
    play = Play(policy=TIGHT)
    lease = play.open()
    for number in (1, 2, 3):
        play.assign(lease, spec(number))
    assert kinds(play.finish(lease, spec(1))) == ["SignClaim", "StartTask"]
    assert kinds(play.finish(lease, spec(2))) == ["SignClaim"]
    assert kinds(play.pay(lease, 5)) == ["ReplyOk"]
    assert kinds(play.pay(lease, 6)) == ["ReplyOk", "StartTask"]


def test_only_a_higher_voucher_of_the_requester_within_the_cap_counts() -> None:
    play = Play()
    lease = play.open(cap_ucr=100)
    play.pay(lease, 50)
    changes = play.state.changes
    assert kinds(play.pay(lease, 50)) == kinds(play.pay(lease, 49)) == ["ReplyOk"]
    assert kinds(play.pay(lease, 101)) == kinds(play.pay(lease, 60, signer=EVE)) == ["ReplyFailure"]
    assert kinds(play.pay(lease, 60, caller=b"E" * 32)) == ["ReplyFailure"]
    assert (play.state.changes, play.state.leases[lease].voucher_ucr) == (changes, 50)


def test_vouchers_are_redeemed_after_a_while_and_before_the_end() -> None:
    play = Play()
    lease = play.open()
    play.pay(lease, 50)
    assert play.outstanding() == []
    play.later(60_000)
    assert play.outstanding() == [t.RedeemVoucher(lease, 50, SIGNED)]
    play.put(t.LedgerRedeemed, lease, 50)
    assert play.outstanding() == []
    play.now_ms = START_MS + 3_600_000 - 60_000
    play.pay(lease, 70)
    assert play.outstanding() == [t.RedeemVoucher(lease, 70, SIGNED)]


def test_closing_redeems_first_then_closes_then_forgets_the_tasks() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    play.pay(lease, 50)
    effects = play.put(t.PeerClosed, ANNA_NODE, lease)
    assert kinds(effects) == ["ReplyOk", "StopLease", "RedeemVoucher"]
    assert play.put(t.LedgerRedeemed, lease, 50) == [t.ReleaseEscrow(lease)]
    assert kinds(play.put(t.PeerClosed, ANNA_NODE, lease)) == ["ReplyOk", "ReleaseEscrow"]
    play.put(t.LedgerClosed, lease)
    assert kinds(play.put(t.PeerClosed, ANNA_NODE, lease)) == ["ReplyOk", "ReleaseEscrow"], "it may have opened late"
    assert play.state.leases[lease].tasks == {}
    assert kinds(play.pay(lease, 60)) == ["ReplyFailure"]


def test_a_voucher_that_comes_while_closing_is_redeemed_too() -> None:
    play = Play()
    lease = play.open()
    play.put(t.PeerClosed, ANNA_NODE, lease)
    play.pay(lease, 80)
    assert play.outstanding() == [t.RedeemVoucher(lease, 80, SIGNED)]


def test_a_bank_that_refuses_the_voucher_ends_the_work() -> None:
    play = Play()
    lease = play.open()
    play.pay(lease, 50)
    assert kinds(play.put(t.LedgerRefusedVoucher, lease, "closed")) == ["StopLease", "EmitEvent", "ReleaseEscrow"]


@pytest.mark.parametrize(("paid_ucr", "waits_ms"), [(10, 5_000), (9, 60_000)])
def test_an_ended_lease_waits_for_money_that_may_still_come(paid_ucr: int, waits_ms: int) -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    play.finish(lease, spec(1))
    play.pay(lease, paid_ucr)
    play.now_ms = START_MS + 3_600_000
    assert kinds(play.later(0)) == ["StopLease", "EmitEvent"]
    assert play.later(waits_ms - 1) == []
    assert kinds(play.later(1)) == ["RedeemVoucher"]


def test_an_escrow_that_the_requester_closed_ends_the_work() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    assert kinds(play.put(t.LedgerClosed, lease)) == ["StopLease", "EmitEvent", "EmitEvent"]
    assert play.put(t.LedgerClosed, lease) == []


def test_a_lane_may_go_as_far_as_cap_and_credit_allow() -> None:
    play = Play(policy=TIGHT)
    lease = play.open(cap_ucr=100)
    assert allowance_units(play.state, lease) == 15
    play.put(t.LaneAnswered, lease, 1, 15, 15, b"r" * 32)
    assert allowance_units(play.state, lease) == 0
    play.pay(lease, 95)
    assert allowance_units(play.state, lease) == 85
    assert allowance_units(play.state, bytes(32)) == 0
    play.put(t.PeerClosed, ANNA_NODE, lease)
    assert allowance_units(play.state, lease) == 0
