"""What an account has shown decides what its unchecked claims are worth: later checks that it passed clear them."""

from __future__ import annotations

from functools import lru_cache

from fallow.rules import market, trust
from fallow.rules.steward import claims
from fallow.rules.steward.claims import Finding, claim_of
from fallow.rules.steward.state import Claim, Job, Seat, State, Turn
from fallow.rules.trust import Policy

AUDIT = "audit"
SAME = Finding("sampled", "what it found is what another had claimed")
"""Why an audit's claim is final."""
_CLEARED = Finding("cleared", "its account passed other checks")
_UNCHECKED = Finding("unchecked", "no other provider could check it")


@lru_cache(64)
def read_settings(settings: str, in_links: bool) -> Policy | str:
    """`trust.parse_settings`, which is asked for with every claim."""
    return trust.parse_settings(settings, exact=in_links)


def policy_of(job: Job) -> Policy:
    """The settings of an audited job."""
    found = read_settings(job.spec.verify.strip().partition(":")[2], market.in_links(job.spec))
    assert isinstance(found, Policy), "refused when it was submitted"
    return found


def audited(job: Job) -> bool:
    """Whether the job's claims are checked by audits."""
    return job.spec.verify.strip().partition(":")[0] == AUDIT


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
        if not audited(job):
            continue
        for claim in [claim for claim in seat.claims.values() if claim.provisional]:
            old = trust.clears(policy_of(job), standing.passed + 1 - claim.passed)
            if not on_trial(job, account) if claim.trial else old:
                clear(turn, job, seat, claim)


def clear(turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
    """Make a provisional claim final: without a check of its own, or the check that it stood before its account's trial
    was over."""
    known = turn.state.standing(seat.account).passed >= max(1, policy_of(job).probation)
    finding = SAME if claim.trial else _CLEARED if known else _UNCHECKED
    claims.clear(turn, job, seat, claim, finding)
    if finding is _UNCHECKED and claim.slot is not None:
        turn.warn_once(job, "unchecked", "Some results could not be checked: there was no other provider to do so.")
