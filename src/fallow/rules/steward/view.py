"""A job as people see it, and a lane job's leases as the lane code needs them."""

from __future__ import annotations

from typing import NamedTuple

from fallow.rules.steward.shapes.lanes import lane_reserve
from fallow.rules.steward.specs import told
from fallow.rules.steward.state import Job, Mark, Seat, Stage, State
from fallow.wire.local import JobSpec, JobView, LeaseView, RoundView, ServeJob
from fallow.wire.messages import NodeAddress

MAX_LEASES = 4096
MAX_ROUNDS = 4096
KINDS = {"TrainJob": "train", "BatchJob": "batch", "ServeJob": "serve", "LaneJob": "lane"}


def view(state: State, job_id: bytes) -> JobView | None:
    """The job as it stands; None for an unknown id. `spent_ucr` is what was promised in vouchers or paid,
    `locked_ucr` what else is in escrow."""
    job = state.jobs.get(job_id)
    if job is None:
        return None
    done, total = _progress(job)
    leased = [seat for seat in job.seats if seat.stage is not Stage.DROPPED]
    spent = sum(_spent_ucr(seat) for seat in leased)
    failed = job.ending if job.ending is not None and job.ending.code else None
    return JobView(
        job=job.id,
        kind=word_of(job.spec),
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
        rounds=_rounds(job),
        served_name=job.spec.work.name if isinstance(job.spec.work, ServeJob) else "",
        workload=job.kind,
    )


def word_of(spec: JobSpec) -> str:
    """What people call a job of that form."""
    return KINDS[type(spec.work).__name__]


def _progress(job: Job) -> tuple[int, int]:
    if job.log is not None:
        return job.log.current, job.log.rounds
    if job.lanes is not None:
        return sum(seat.tasks_claimed for seat in job.seats), 0
    return job.finals, len(job.slots)


def _spent_ucr(seat: Seat) -> int:
    return seat.settled[0] if seat.stage is Stage.CLOSED else seat.voucher_ucr


def _locked_ucr(seat: Seat) -> int:
    held = seat.stage in (Stage.OPEN, Stage.CLOSING)
    return seat.leased.cap_ucr - seat.voucher_ucr if held else 0


def _lease_view(state: State, job: Job, seat: Seat) -> LeaseView:
    return LeaseView(
        lease=seat.lease or bytes(32),
        account=seat.account,
        node=seat.node,
        state=_seat_state(state, seat),
        price_ucr=seat.price_ucr,
        tasks_claimed=seat.tasks_claimed,
        units_claimed=seat.units_claimed,
        units_final=seat.final_units,
        paid_ucr=_spent_ucr(seat),
        slashed_ucr=seat.slashed_ucr,
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


def _rounds(job: Job) -> tuple[RoundView, ...]:
    """Closed rounds; after the last one, the state and loss of the finished result as a round without updates."""
    if job.log is None:
        return ()
    views: list[RoundView] = []
    for number, entries in enumerate(job.log.closed):
        state, agreed, loss = job.round_state.get(number, (b"", True, ""))
        sent = sum(entry.update.size_bytes for entry in entries.values())
        views.append(RoundView(number, len(entries), state, agreed, loss, sent))
    finish = job.slots[job.finish_slot].chosen() if job.finish_slot >= 0 else None
    value = told(job, finish) if finish is not None else None
    if value is not None:
        views.append(RoundView(job.log.rounds, 0, value.state, True, value.loss[:40], 0))
    return tuple(views[-MAX_ROUNDS:])


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
    if job is None or job.lanes is None or job.ending is not None:
        return ()
    seats = [job.seats[number] for number in job.live]
    return tuple(
        LaneSeat(
            seat.lease,
            seat.account,
            seat.peer,
            seat.offer.hardware.numerics,
            seat.price_ucr,
            seat.units_per_s,
            seat.room_units() - (lane_reserve(seat) if seat.price_ucr else 0),
        )
        for seat in seats
        if seat.usable and seat.ready and seat.node not in state.roll.since
    )
