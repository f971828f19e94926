"""What the steward would ask for again after a restart, and when time alone would make it act."""

from __future__ import annotations

from collections.abc import Iterator

from fallow.rules.steward import hiring, pay
from fallow.rules.steward.blobs import sources_of
from fallow.rules.steward.check import check_of
from fallow.rules.steward.dispatch import assign_effect
from fallow.rules.steward.end import job_deadline_ms
from fallow.rules.steward.events import (
    AskQuote,
    Draw,
    EndLease,
    KeepBlob,
    Pay,
    ProposeLease,
    StewardEffect,
)
from fallow.rules.steward.shape import shape_of
from fallow.rules.steward.state import Job, Mark, Phase, Seat, Stage, State, Step


def outstanding(state: State) -> list[StewardEffect]:
    """What was asked for and is not answered yet, to be asked for again after a restart. Per lease in the right
    order."""
    effects: list[StewardEffect] = [
        EndLease(lease, left.peer, left.owed_ucr, left.ends_ms) for lease, left in state.leftovers.items()
    ]
    for job in state.jobs.values():
        if job.market.searching:
            effects.append(hiring.find_offers(job))
        for seat in job.present:
            effects.extend(_on_seat(job, seat))
        effects.extend(_blobs(job))
    return effects


def _on_seat(job: Job, seat: Seat) -> list[StewardEffect]:
    match seat.stage:
        case Stage.ASKING:
            return [AskQuote(job.id, seat.number, seat.peer, seat.deal.order)]
        case Stage.PROPOSED:
            return [ProposeLease(job.id, seat.number, seat.peer, seat.leased)]
        case Stage.OPENING:
            return [hiring.open_effect(seat)]
        case Stage.OPEN | Stage.CLOSING:
            return _on_lease(job, seat)
        case _:
            return []


def _on_lease(job: Job, seat: Seat) -> list[StewardEffect]:
    effects = hiring.standing_effects(job, seat)
    effects.extend(assign_effect(job, seat, run) for run in job.runs_on(seat))
    effects.extend(_draws(job, seat))
    if seat.money.voucher_ucr > seat.money.acked_ucr and seat.stage is Stage.OPEN:
        effects.append(Pay(seat.lease, seat.peer, seat.money.voucher_ucr))
    effects.extend(seat.money.charges.values())
    if seat.stage is Stage.CLOSING:
        effects.append(pay.close_effect(seat))
    return effects


def _draws(job: Job, seat: Seat) -> list[StewardEffect]:
    effects: list[StewardEffect] = []
    draws = check_of(job).draws
    for claim in seat.claims.values():
        waits = draws and (claim.slot is None or job.slots[claim.slot].step is Step.KEEPING)
        if not claim.seed and waits:
            effects.append(Draw(seat.lease, claim.hash, claim.root))
        elif claim.asked is not None:
            effects.append(claim.asked)
    return effects


def _blobs(job: Job) -> list[StewardEffect]:
    wanted: dict[bytes, StewardEffect] = {}
    for key in job.queue.keeping:
        slot = job.slots[key]
        for run in slot.live():
            for part in run.output.parts if run.output is not None else ():
                if job.blobs.kept.get(part.blob) is False:
                    wanted[part.blob] = KeepBlob(job.id, part, sources_of(slot, run.answer))
    wanted |= {keep.part.blob: keep for keep in check_of(job).keeps(job)}
    return list(wanted.values())


def next_due_ms(state: State) -> int | None:
    """The earliest moment at which a ClockTicked would do something; None while nothing waits for time. What was due
    when a job was last looked after was done then, or waits for something else than time."""
    moments = (
        moment
        for job in state.jobs.values()
        if job.live or not job.over
        for moment in _moments(state, job)
        if moment > job.looked_ms
    )
    return min(moments, default=None)


def _moments(state: State, job: Job) -> Iterator[int]:
    timing = state.timing
    if job.reported:
        if not job.over:
            yield job.ended_ms + timing.lost_after
        return
    if job.ending is not None:
        yield job.ended_ms + timing.audit_within
        return
    yield job_deadline_ms(job)
    if not job.market.searching:
        yield (job.market.searched_ms or 0) + timing.search_every
    if job.phase is Phase.STARTING:
        yield job.market.patient_ms + timing.patience
    yield from shape_of(job.spec.work).moments(state, job)
    yield from check_of(job).moments(state, job)
    for seat in job.present:
        yield from _seat_moments(state, job, seat)


def _seat_moments(state: State, job: Job, seat: Seat) -> Iterator[int]:
    if seat.negotiating:
        yield seat.deal.deadline_ms
    if seat.usable:
        yield hiring.last_call_ms(seat)
    if seat.stage is Stage.OPEN:
        yield hiring.decide_by_ms(seat)
    if seat.stage is Stage.OPEN and seat.mark in (Mark.NONE, Mark.FULL):
        dead = state.roll.dead_at_ms(seat.node, state.timing.lost_after)
        if dead is not None:
            yield dead
    yield from (run.deadline_ms for run in job.runs_on(seat))
