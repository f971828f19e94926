"""What an account has shown decides what its unchecked claims are worth."""

from __future__ import annotations

from tests.rules.steward.test_claims import claimed

from fallow.rules.steward import events as t
from fallow.rules.steward.checks.standing import clear, on_trial, passed, policy_of, proven
from fallow.rules.steward.claims import ban, hold
from fallow.rules.steward.state import Turn


def test_later_checks_clear_what_is_older_than_the_window() -> None:
    crowd, job, seat, claim = claimed()
    turn = Turn(crowd.state)
    hold(turn, seat, claim)
    for _ in range(policy_of(job).window - 1):
        passed(turn, seat.account)
    assert claim.hash in seat.claims
    passed(turn, seat.account)
    (receipt,) = [effect for effect in turn.effects if isinstance(effect, t.KeepReceipt)]
    assert (receipt.check, claim.hash in seat.claims) == ("cleared", False)


def test_one_on_trial_waits_for_what_its_account_claimed_before() -> None:
    crowd, job, seat, claim = claimed()
    turn = Turn(crowd.state)
    assert on_trial(job, seat.account)
    hold(turn, seat, claim, trial=True)
    for _ in range(policy_of(job).window + 1):
        passed(turn, seat.account)
    assert claim.hash in seat.claims
    clear(turn, job, seat, claim)
    (receipt,) = [effect for effect in turn.effects if isinstance(effect, t.KeepReceipt)]
    assert receipt.check == "sampled"


def test_who_passed_nothing_or_is_banned_has_proved_nothing() -> None:
    crowd, job, seat, claim = claimed()
    turn = Turn(crowd.state)
    assert not proven(crowd.state, job, seat.account)
    hold(turn, seat, claim)
    clear(turn, job, seat, claim)
    assert [effect.check for effect in turn.effects if isinstance(effect, t.KeepReceipt)] == ["unchecked"]
    passed(turn, seat.account)
    assert proven(crowd.state, job, seat.account)
    ban(turn, seat.account)
    assert not proven(crowd.state, job, seat.account)
