"""Where the answers of others do not decide, the requester's own machine does: the one witness that nobody else can
hire, outvote or keep away.

Its word is one voice. Whoever gave the same is right, and who said otherwise is banned; where nobody gave the same
nobody is accused, since a single machine may err, this one too. Before a ledger it counts for nothing."""

from __future__ import annotations

from fallow.rules.steward.checks.look import look_at, seen_of
from fallow.rules.steward.claims import Finding, claim_of
from fallow.rules.steward.dispatch import assign_effect
from fallow.rules.steward.events import ReplayTask
from fallow.rules.steward.state import Job, Slot, Turn
from fallow.rules.steward.terms import same_everywhere

SAME = Finding("replayed", "done again on the requester's own machine, which gave the same")


def ask(turn: Turn, job: Job, slot: Slot) -> bool:
    """Have the slot's task done again here; -> whether an answer will come. None does for a job whose time to wait is
    over."""
    if under_way(turn, job, slot):
        return True
    run = next((run for run in slot.live() if claim_of(job, run) is not None), None)
    claim = claim_of(job, run) if run is not None else None
    if run is None or claim is None or _late(turn, job):
        return False
    seat = job.seats[run.seat]
    numerics = seat.deal.order.numerics
    if not numerics and not same_everywhere(job.spec):
        numerics = seat.offer.hardware.numerics
    # the accused may be the only one who has what it was given: it is asked, too
    sources = (*assign_effect(job, seat, run).sources, *run.holders)
    claim.asked = ReplayTask(job.id, seat.lease, claim.hash, run.spec, numerics, sources)
    turn.ask(claim.asked)
    turn.note(job, "check", f"Task {slot.key}: the answers do not decide; this machine does it again.")
    look_at(slot).replay = claim.hash
    job.queue.wanting.pop(slot.key, None)
    return True


def under_way(turn: Turn, job: Job, slot: Slot) -> bool:
    """Whether it is being done again here: the slot waits for that."""
    asked = seen_of(slot).replay
    there = (claim_of(job, run) for run in slot.live())
    return bool(asked) and not _late(turn, job) and any(claim is not None and claim.hash == asked for claim in there)


def _late(turn: Turn, job: Job) -> bool:
    return bool(job.ended_ms) and turn.now_ms >= job.ended_ms + turn.state.timing.audit_within
