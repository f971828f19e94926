"""A lane's batch under audit: some of its tasks are done again on lanes of others, among their other tasks. They are
drawn from the answers that are paid for, however many others were refused."""

from __future__ import annotations

from fallow.rules import trust
from fallow.rules.steward.checks.standing import passed, pay_up, policy_of, reopened
from fallow.rules.steward.claims import Finding, Refuted, finalise, hold, refute
from fallow.rules.steward.events import AuditLane, LaneAudited, LaneCaught, LaneUnchecked
from fallow.rules.steward.hiring import can_recruit
from fallow.rules.steward.state import Claim, Job, Seat, Turn
from fallow.wire.receipts import MAX_UNDRAWN

MAX_INDEXES = 64
"""The most tasks of one batch that are done again: bounds the work that a large batch can cause."""


def begin(turn: Turn, job: Job, seat: Seat, batch: Claim) -> None:
    """The batch is drawn. One whose randomness the bank refused is checked as if its account were new."""
    refused = batch.seed == batch.hash
    standing = trust.Standing() if refused else turn.state.standing(seat.account)
    reopened(seat)
    check(turn, job, seat, batch, trust.sample_indexes(policy_of(job), standing, batch.seed, batch.paid, MAX_INDEXES))


def check_last(turn: Turn, job: Job, seat: Seat, batch: Claim) -> None:
    """One of its tasks, before the seat is closed; as many as may be where the seat was given up."""
    most = MAX_INDEXES if seat.suspect else 1
    policy = policy_of(job)._replace(probation=most)
    check(turn, job, seat, batch, trust.sample_indexes(policy, trust.Standing(), batch.seed, batch.paid, most))


def check(turn: Turn, job: Job, seat: Seat, batch: Claim, indexes: tuple[int, ...]) -> None:
    """Have the tasks at `indexes` done again; with none, or nobody to do so, the batch is provisional."""
    others: dict[bytes, bytes] = {}
    for other in job.usable:
        if other.lane.ready and other.account != seat.account:
            others.setdefault(other.account, other.lease)
    if not indexes:
        hold(turn, seat, batch)
        return
    if not others:
        if not can_recruit(job):
            turn.warn_once(job, "no auditor", "Answers cannot be checked now: there is no other provider that could.")
        hold(turn, seat, batch)
        pay_up(turn, job, seat, batch)
        return
    order = trust.auditor_order(batch.seed, others, batch.drawn)
    auditors = tuple(others[account] for account in order)[:64]
    batch.since_ms = None
    batch.asked = AuditLane(seat.lease, batch.hash, batch.first, indexes, auditors, policy_of(job).quorum)
    turn.ask(batch.asked)


def audited(turn: Turn, job: Job, seat: Seat, event: LaneAudited) -> None:
    """The samples were right: the batch is final, and so is what is older than the window. Auditors learn nothing
    from it about themselves here: their own batches are sampled like anyone's."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or not isinstance(batch.asked, AuditLane):
        return
    text = f"{len(batch.asked.indexes)} of {batch.count} done again with equal answers"
    asked = [found[1].account for lease in batch.asked.auditors if (found := turn.state.seat_of(lease)) is not None]
    used = [found[1].account for lease in event.auditors if (found := turn.state.seat_of(lease)) is not None]
    undrawn = trust.after(batch.seed, used, set(asked).difference(used), batch.drawn)[:MAX_UNDRAWN]
    finding = Finding("checked", text, (), batch.seed, None, batch.drawn, (), undrawn)
    finalise(turn, job, seat, batch, finding)
    pay_up(turn, job, seat, batch)
    passed(turn, seat.account)


def caught(turn: Turn, job: Job, seat: Seat, event: LaneCaught) -> None:
    """Two or more accounts agree on another answer: the account is charged and banned."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or not isinstance(batch.asked, AuditLane):
        return
    text = f"A wrong answer; {len(event.others)} others agree on another."
    refute(turn, job, seat, batch, text, Refuted(event.task, event.accused, event.others))


def unchecked(turn: Turn, job: Job, seat: Seat, event: LaneUnchecked) -> None:
    """Nobody could do it again: the batch stays provisional."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or not isinstance(batch.asked, AuditLane):
        return
    hold(turn, seat, batch)
    pay_up(turn, job, seat, batch)
    turn.warn_once(job, "no auditor", f"Answers could not be checked: {event.what}"[:300])
