"""A job as people see it, and a lane job's leases as the lane code needs them."""

from __future__ import annotations

from typing import NamedTuple

from fallow.rules.steward.shapes.lanes import lane_reserve
from fallow.rules.steward.shapes.registry import shape_of
from fallow.rules.steward.state import Job, Mark, Seat, Stage, State
from fallow.wire.local import JobView, LeaseView
from fallow.wire.messages import NodeAddress

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


class LaneSeat(NamedTuple):
    """A lease that takes lane tasks. `room_units`: what may still be sent to it before its cap is reserved for what
    is under way already."""

    lease: bytes
    account: bytes
    peer: NodeAddress
    numerics: str
    price_ucr: int
    units_per_s: int
    room_units: int


def lane_seats(state: State, job_id: bytes) -> tuple[LaneSeat, ...]:
    """The leases of a serve or lane job that are ready and not known to be out of reach, in the order of their
    opening."""
    job = state.jobs.get(job_id)
    if job is None or not shape_of(job.spec.work).on_lanes or job.ending is not None:
        return ()
    seats = [job.seats[number] for number in job.live]
    return tuple(
        LaneSeat(
            seat.lease,
            seat.account,
            seat.peer,
            seat.offer.hardware.numerics,
            seat.money.price_ucr,
            seat.units_per_s,
            seat.room_units() - (lane_reserve(seat) if seat.money.price_ucr else 0),
        )
        for seat in seats
        if seat.usable and seat.lane.ready and seat.node not in state.roll.since
    )
