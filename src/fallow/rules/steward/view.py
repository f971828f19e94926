"""A job as people see it."""

from __future__ import annotations

from fallow.rules.steward.shapes.registry import shape_of
from fallow.rules.steward.state import Job, Mark, Seat, Stage, State
from fallow.wire.local import JobView, LeaseView

MAX_LEASES = 4096


def view(state: State, job_id: bytes) -> JobView | None:
    """The job as it stands; None for an unknown id. `spent_ucr` is what was promised in vouchers or paid,
    `locked_ucr` what else is in escrow."""
    job = state.jobs.get(job_id)
    if job is None:
        return None
    shape, work = shape_of(job.spec.work), job.spec.work
    done, total = shape.progress(job)
    leased = [seat for seat in job.seats if seat.stage is not Stage.DROPPED]
    spent = sum(_spent_ucr(seat) for seat in leased)
    failed = job.ending if job.ending is not None and job.ending.code else None
    return JobView(
        job=job.id,
        kind=shape.name,
        name=job.spec.name,
        phase=job.phase.value,
        done=done,
        total=total,
        budget_ucr=job.spec.budget_ucr,
        spent_ucr=spent,
        locked_ucr=sum(_locked_ucr(seat) for seat in leased),
        created_ms=job.created_ms,
        ended_ms=job.ended_ms,
        failure_code=failed.code if failed else "",
        failure=failed.what if failed else "",
        leases=tuple(_lease_view(state, job, seat) for seat in leased[-MAX_LEASES:]),
        rounds=shape.rounds(job),
        served_name=shape.lane(work).served_as if shape.on_lanes else "",
        workload=job.kind,
    )


def _spent_ucr(seat: Seat) -> int:
    return seat.money.settled[0] if seat.stage is Stage.CLOSED else seat.money.voucher_ucr


def _locked_ucr(seat: Seat) -> int:
    held = seat.stage in (Stage.OPEN, Stage.CLOSING)
    return seat.leased.cap_ucr - seat.money.voucher_ucr if held else 0


def _lease_view(state: State, job: Job, seat: Seat) -> LeaseView:
    return LeaseView(
        lease=seat.lease or bytes(32),
        account=seat.account,
        node=seat.node,
        state=_seat_state(state, seat),
        price_ucr=seat.money.price_ucr,
        tasks_claimed=seat.tasks_claimed,
        units_claimed=seat.units_claimed,
        units_final=seat.money.final_units,
        paid_ucr=_spent_ucr(seat),
        slashed_ucr=seat.money.slashed_ucr,
    )


def _seat_state(state: State, seat: Seat) -> str:
    if seat.negotiating:
        return "offered"
    if seat.mark is Mark.BANNED:
        return "banned"
    if seat.stage is Stage.CLOSED:
        return "closed"
    if seat.mark is Mark.LOST:
        return "lost"
    if seat.node in state.roll.since:
        return "unobserved"
    return "open" if seat.usable else "leaving"
