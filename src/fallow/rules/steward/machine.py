"""The steward's brain: one pure, replayable machine for all jobs of an owner.

    effects = transition(state, event)

updates `state` in place and says what to do. `steward_types` defines events and effects and how to run them;
`outstanding` gives what is still to be done after a restart, `due` says whether time alone would change anything,
`view` (in `steward_view`) shows a job to people. Nothing here reads a clock, draws a number or touches the world, and
no event, however stale, repeated or out of order, raises or is paid for twice."""

from __future__ import annotations

from fallow.kinds.registry import KINDS
from fallow.rules import market
from fallow.rules.steward import dispatch, hiring, pay
from fallow.rules.steward import events as t
from fallow.rules.steward.checks.registry import PolicyError, check_of, parse
from fallow.rules.steward.end import (
    complete,
    lapse,
    out_of_money,
    out_of_time,
    settle,
    settle_marked,
    wind_down,
    wind_up,
)
from fallow.rules.steward.redo import next_due_ms, outstanding
from fallow.rules.steward.shapes.registry import SHAPES, Shape, shape_of
from fallow.rules.steward.state import Ending, Hiring, Job, Seat, Stage, State, Turn
from fallow.rules.steward.view import view
from fallow.wire.local import JobSpec

__all__ = ["State", "due", "next_due_ms", "outstanding", "transition", "unheard_of", "view"]


def transition(state: State, event: t.StewardEvent) -> list[t.StewardEffect]:
    """Apply one event; -> what to do now, in order."""
    state.now_ms = max(state.now_ms, event.at_ms)
    turn = Turn(state)
    lapse(turn)
    match event:
        case t.StewardStarted():
            _started(turn, event)
        case t.ClockTicked() | t.PeerUnobserved() | t.PeerObserved():
            if isinstance(event, t.PeerUnobserved):
                dispatch.unobserved(turn, event.node)
            elif isinstance(event, t.PeerObserved):
                dispatch.observed(turn, event.node)
            _touch_all(turn)
        case t.UserSubmitted():
            _submitted(turn, event)
        case _:
            _about_a_job(turn, event)
    _look_after(turn)
    return turn.effects


def _about_a_job(turn: Turn, event: t.StewardEvent) -> None:
    """Find the job (and the seat) that the event speaks of; one that speaks of nothing we know is dropped."""
    state = turn.state
    match event:
        case t.UserCancelled() | t.OffersGathered() | t.BlobKept() | t.BlobMissing():
            job = state.jobs.get(event.job)
            if job is not None and not job.reported:
                _on_job(turn, job, event)
                turn.touch(job)
        case t.PeerQuoted() | t.PeerDeclined() | t.PeerSigned():
            job = state.jobs.get(event.job)
            if job is not None and job.ending is None and event.seat < len(job.seats):
                _on_negotiation(turn, job, event)
                turn.touch(job)
        case t.AuditorsDrawn() | t.LedgerRefusedDraw():
            found = state.seat_of(state.claims.get(event.claim_hash, b""))
            if found is not None:
                dispatch.drawn(turn, *found, event)
                turn.touch(found[0])
        case _:
            found = state.seat_of(getattr(event, "lease", b""))
            if isinstance(event, t.LedgerClosed):
                state.leftovers.pop(event.lease, None)
            if found is not None:
                _on_seat(turn, *found, event)
                turn.touch(found[0])


def _on_job(turn: Turn, job: Job, event: t.UserCancelled | t.OffersGathered | t.BlobKept | t.BlobMissing) -> None:
    match event:
        case t.UserCancelled():
            if job.ending is None:
                job.ending = Ending("E1402", "cancelled by its owner")
        case t.OffersGathered():
            hiring.offers_seen(turn, job, event)
        case t.BlobKept():
            dispatch.blob_kept(turn, job, event)
        case t.BlobMissing():
            dispatch.blob_missing(turn, job, event)


def _on_negotiation(turn: Turn, job: Job, event: t.PeerQuoted | t.PeerDeclined | t.PeerSigned) -> None:
    match event:
        case t.PeerQuoted():
            hiring.quoted(turn, job, event)
        case t.PeerDeclined():
            hiring.declined(turn, job, event)
        case t.PeerSigned():
            hiring.signed(turn, job, event)


def _on_seat(turn: Turn, job: Job, seat: Seat, event: t.StewardEvent) -> None:
    match event:
        case t.LedgerOpened():
            hiring.opened(turn, job, seat)
        case t.LedgerRefusedEscrow():
            hiring.escrow_refused(turn, job, seat, event)
        case t.PeerClaimed():
            dispatch.claimed(turn, job, seat, event)
        case t.PeerFailed():
            dispatch.failed(turn, job, seat, event)
        case t.PeerLeaving():
            dispatch.leaving(turn, job, seat, event)
        case t.PeerTookVoucher():
            pay.paid(seat, event)
        case t.LedgerSlashed() | t.LedgerRefusedCharge():
            pay.charged(turn, job, seat, event)
        case t.LedgerClosed():
            pay.closed(turn, job, seat, event)
            dispatch.closed(turn, job, seat)
        case _:
            shape_of(job.spec.work).heard(turn, job, seat, event)


def _started(turn: Turn, event: t.StewardStarted) -> None:
    state = turn.state
    state.identity, state.timing = event.identity, event.timing
    nodes = [seat.node for job in state.jobs.values() for seat in job.present if seat.stage is Stage.OPEN]
    state.roll.begin_anew(nodes, state.now_ms)
    for job in state.jobs.values():
        dispatch.extend_deadlines(turn, job)
        job.market.patient_ms = state.now_ms
        for seat in job.present:
            seat.deal.deadline_ms = max(seat.deal.deadline_ms, state.now_ms + state.timing.quote_within)
        check_of(job).resume(turn, job)
        shape_of(job.spec.work).resume(turn, job)
    _touch_all(turn)


def _touch_all(turn: Turn) -> None:
    for job in turn.state.jobs.values():
        if not job.over or job.live:
            turn.touch(job)


def _submitted(turn: Turn, event: t.UserSubmitted) -> None:
    if event.job in turn.state.jobs:
        return
    name = event.spec.work.workload
    kind, nobodys = KINDS.get(name), unheard_of(event.spec)
    depth = kind.depth if kind is not None else 1
    job = Job(event.job, event.spec, turn.now_ms, name, depth, Hiring(turn.now_ms))
    turn.state.jobs[event.job] = job
    turn.touch(job)
    turn.note(job, "phase", "The job is looking for providers.")
    if wrong := nobodys or _wrong_with(event.spec):
        job.ending = Ending("E2001", wrong)
        return
    shape_of(event.spec.work).start(turn, job)


def unheard_of(spec: JobSpec) -> str:
    """What nobody here has registered of what the job takes (its form, its kind of work, its check), in words; "" when
    all is there."""
    if type(spec.work) not in SHAPES:
        return f"no form of jobs is called {type(spec.work).__name__!r}"
    if spec.work.workload not in KINDS:
        return f"no kind of work is called {spec.work.workload[:40]!r}"
    check = parse(spec.verify, in_links=market.in_links(spec))
    return check.what if isinstance(check, PolicyError) else ""


def _wrong_with(spec: JobSpec) -> str:
    return shape_of(spec.work).refuse(spec) or ("" if spec.timeout_s > 0 else "a job without any time")


def _look_after(turn: Turn) -> None:
    """Everything that follows from what changed, until nothing more follows."""
    done = 0
    while turn.touched:
        job_id = next(iter(turn.touched))
        del turn.touched[job_id]
        _look_after_job(turn, turn.state.jobs[job_id])
        done += 1
        assert done < 10_000, "jobs keep changing each other"
    pay.pay_out(turn)


def _look_after_job(turn: Turn, job: Job) -> None:
    job.looked_ms = turn.now_ms
    if job.ending is None:
        hiring.overdue(turn, job)
        dispatch.bury(turn, job)
        dispatch.overdue_tasks(turn, job)
        out_of_time(turn, job)
    if job.ending is None:
        _go_on(turn, job)
    if job.ending is not None and not job.reported:
        wind_down(turn, job)
    check_of(job).tidy(turn, job)
    if job.reported:
        settle(turn, job)


def _go_on(turn: Turn, job: Job) -> None:
    """A job that is under way."""
    shape = shape_of(job.spec.work)
    shape.fill_up(job)
    shape.advance(turn, job)
    dispatch.plan(turn, job)
    if job.moved:
        shape.advance(turn, job)
        dispatch.plan(turn, job)
    if complete(job):
        wind_up(turn, job)
    if job.reported:
        return
    settle_marked(turn, job)
    if shape.on_lanes or job.queue.waiting or job.queue.checking:
        hiring.recruit(turn, job)
    hiring.give_up(turn, job)
    out_of_money(turn, job)
    _progress(turn, job, shape)
    if job.moved:
        turn.touch(job)


def _progress(turn: Turn, job: Job, shape: Shape) -> None:
    done, total = shape.progress(job)
    if shape.progress_text and done != job.told.progress:
        job.told.progress = done
        turn.note(job, "progress", shape.progress_text, done=done, total=total)


def due(state: State, now_ms: int) -> bool:
    """Whether a ClockTicked at `now_ms` would do anything."""
    moment = next_due_ms(state)
    return moment is not None and now_ms >= moment
