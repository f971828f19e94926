"""What an account has shown decides what its unchecked claims are worth: later checks that it passed clear them."""

from __future__ import annotations

from fallow.rules import trust
from fallow.rules.steward import claims
from fallow.rules.steward.check import Check, check_of
from fallow.rules.steward.checks.look import Closing, Paying
from fallow.rules.steward.claims import Finding, claim_of
from fallow.rules.steward.state import Claim, Job, Seat, Stage, State, Turn
from fallow.rules.trust import Policy
from fallow.units import cost_ucr

PAY_FROM_UCR = 25_000
"""Unpaid claims of a seat for which one of them is checked out of turn, so that the others can be paid: half of the
credit that a provider gives if its owner does not say otherwise (`ProviderPolicy.credit_ucr`)."""

SAME = Finding("sampled", "what it found is what another had claimed")
"""Why an audit's claim is final."""
_CLEARED = Finding("cleared", "its account passed other checks")
_UNCHECKED = Finding("unchecked", "no other provider could check it")


class ByPolicy(Check):
    """A check that looks at as many claims of an account as its standing and the `policy` ask for."""

    def __init__(self, policy: Policy = trust.DEFAULT) -> None:
        self.policy = policy


def policy_of(job: Job) -> Policy:
    """The settings of an audited job."""
    check = check_of(job)
    assert isinstance(check, ByPolicy), "only audits ask"
    return check.policy


def proven(state: State, job: Job, account: bytes) -> bool:
    """Whether the account has passed its probation."""
    standing = state.standing(account)
    return standing.passed >= max(1, policy_of(job).probation) and not standing.banned


def on_trial(job: Job, account: bytes) -> bool:
    """Whether it is still to be decided what something that the account claimed in this job is worth."""
    return any(
        run.account == account and claim_of(job, run) is not None
        for key in (*job.queue.checking, *job.queue.keeping)
        for run in job.slots[key].live()
    )


def passed(turn: Turn, account: bytes) -> None:
    """The account passed a check: its standing grows, and what is older than the window is cleared, as is what only
    waited for this."""
    state = turn.state
    standing = state.standing(account)
    state.standings[account] = standing._replace(passed=standing.passed + 1)
    for job_id, number in state.accounts.get(account, {}):
        job = state.jobs[job_id]
        seat = job.seats[number]
        if not isinstance(check_of(job), ByPolicy):
            continue
        for claim in [claim for claim in seat.claims.values() if claim.provisional]:
            old = trust.clears(policy_of(job), standing.passed + 1 - claim.passed)
            if not on_trial(job, account) if claim.trial else old:
                clear(turn, job, seat, claim)


def outside(job: Job) -> set[bytes]:
    """The accounts that are there to check, and were drawn for it."""
    return {seat.account for seat in job.usable if seat.outside}


def reopened(seat: Seat) -> None:
    """A new claim waits: the check of the last ones is to be made again. One for pay goes on."""
    if isinstance(seat.check, Closing):
        seat.check = None


def pick_for_pay(turn: Turn, job: Job, seat: Seat) -> Claim | None:
    """The claim to be checked now, drawn by the randomness of all that wait, because so much waits for pay that its
    provider may pause; None while little does, or such a check is under way."""
    if seat.stage is not Stage.OPEN or cost_ucr(seat.money.held_units, seat.money.price_ucr) < PAY_FROM_UCR:
        return None
    paying = seat.check
    under_way = seat.claims.get(paying.claim) if isinstance(paying, Paying) else None
    if isinstance(paying, Closing) or (under_way is not None and not under_way.provisional):
        return None
    waiting = {claim.hash: claim for claim in seat.claims.values() if claim.provisional and not claim.trial}
    if cost_ucr(sum(claim.units for claim in waiting.values()), seat.money.price_ucr) < PAY_FROM_UCR:
        return None
    pick = waiting.pop(trust.closing_pick({claim.hash: claim.seed for claim in waiting.values()}))
    seat.check = Paying(pick.hash, tuple(waiting))
    return pick


def pay_up(turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
    """The claim is right, or nobody can check it: where it was looked at so that the others can be paid, they are."""
    paying = seat.check
    if not isinstance(paying, Paying) or paying.claim != claim.hash:
        return
    seat.check = None
    for other in [seat.claims[one] for one in (*paying.before, claim.hash) if one in seat.claims]:
        if other.provisional and not other.trial:
            clear(turn, job, seat, other)


def clear(turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
    """Make a provisional claim final: without a check of its own, or the check that it stood before its account's trial
    was over."""
    known = turn.state.standing(seat.account).passed >= max(1, policy_of(job).probation)
    finding = SAME if claim.trial else _CLEARED if known else _UNCHECKED
    claims.clear(turn, job, seat, claim, finding)
    if finding is _UNCHECKED and claim.slot is not None:
        turn.warn_once(job, "unchecked", "Some results could not be checked: there was no other provider to do so.")
