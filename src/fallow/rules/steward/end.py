"""How leases and jobs end: last checks, last payments, the outcome, and what is left to do after it."""

from __future__ import annotations

from fallow.rules.steward.check import check_of
from fallow.rules.steward.claims import Finding, finalise, void
from fallow.rules.steward.events import JobEnded
from fallow.rules.steward.hiring import break_off, decide_by_ms
from fallow.rules.steward.pay import close_seat
from fallow.rules.steward.shape import shape_of
from fallow.rules.steward.slots import end_run, end_runs, reslot, set_step
from fallow.rules.steward.state import NEVER_MS, Ending, Fate, Job, Mark, Phase, Seat, Slot, Stage, Step, Turn
from fallow.units import MS_PER_S, format_money
from fallow.wire.tasks import TaskOutput


def complete(job: Job) -> bool:
    """Whether every answer that the job is for is there."""
    return shape_of(job.spec.work).complete(job)


def job_deadline_ms(job: Job) -> int:
    """When the time that its owner gave the job is over."""
    return job.created_ms + job.spec.timeout_s * MS_PER_S


def out_of_time(turn: Turn, job: Job) -> None:
    """End a job whose time is over: a failure for work that should have been finished, the plan for a service."""
    if turn.now_ms < job_deadline_ms(job):
        return
    if shape_of(job.spec.work).volume(job.spec).open_ended:
        job.ending = Ending("", "its time is over")
    else:
        job.ending = Ending("E1404", f"not finished within {job.spec.timeout_s} s")


def out_of_money(turn: Turn, job: Job) -> None:
    """When no lease has room and none can be opened, the job pauses: what runs may finish, then it ends."""
    seats = job.present
    if not job.market.dry or any(not seat.outside and (seat.usable or seat.negotiating) for seat in seats):
        return
    text = f"The budget of {format_money(job.spec.budget_ucr)} is used up; the job pauses and ends with what is done."
    turn.warn_once(job, "dry", text)
    checking = any(c.slot is None and not c.provisional for seat in seats for c in seat.claims.values())
    if checking or job.queue.keeping or any(seat.running for seat in seats) or _may_free_money(job, seats):
        return
    job.ending = Ending("E1401", "the budget was used up before the work was done")


def _may_free_money(job: Job, seats: list[Seat]) -> bool:
    """Whether leases that are being closed will give back enough for one more task."""
    back = sum(
        seat.leased.cap_ucr - seat.owed_ucr()
        for seat in seats
        if seat.mark is not Mark.LOST and all(claim.provisional for claim in seat.claims.values())
    )
    units = min(
        (job.slots[key].spec.units for key in job.queue.waiting),
        default=shape_of(job.spec.work).volume(job.spec).largest,
    )
    price = min((seat.money.price_ucr for seat in seats), default=0)
    return back > 0 and (job.left_ucr() + back) * 1_000 >= units * price


def settle_marked(turn: Turn, job: Job) -> None:
    """Leases that get no more work are settled and closed while the job goes on."""
    for seat in job.present:
        if seat.mark is not Mark.NONE and seat.stage is Stage.OPEN and settle_seat(turn, job, seat):
            close_seat(turn, job, seat)


def settle_seat(turn: Turn, job: Job, seat: Seat) -> bool:
    """Whether nothing on the seat is undecided any more; what its check holds is for the check to decide."""
    if seat.running or not all(claim.provisional for claim in seat.claims.values()):
        return False
    return check_of(job).close(turn, job, seat)


def lapse(turn: Turn) -> None:
    """Decide what is still open under leases that are about to end. Comes before anything else that an event may do:
    once the escrow is closed nothing can be paid, and a receipt must not say that it was."""
    state = turn.state
    if state.now_ms < state.lapse_ms:
        return
    state.lapse_ms = NEVER_MS
    for job in state.jobs.values():
        for seat in [seat for seat in job.present if seat.stage is Stage.OPEN]:
            if state.now_ms >= decide_by_ms(seat):
                _decide_all(turn, job, seat)
                turn.touch(job)
            else:
                state.lapse_ms = min(state.lapse_ms, decide_by_ms(seat))


def _decide_all(turn: Turn, job: Job, seat: Seat) -> None:
    """What runs moves; what was claimed is believed of accounts that have proved themselves, while it can be paid, and
    done again by somebody else otherwise."""
    if seat.mark is Mark.NONE:
        seat.mark = Mark.FULL
    for key in dict.fromkeys(seat.running.values()):
        for run in job.slots[key].running():
            if run.seat == seat.number:
                end_run(turn, job, run, cancel=True)
        reslot(turn, job, job.slots[key])
    believed = turn.now_ms < seat.leased.ends_ms and check_of(job).believes(turn.state, job, seat.account)
    for claim in list(seat.claims.values()):
        slot = job.slots[claim.slot] if claim.slot is not None else None
        if not believed or (slot is not None and (_contested(slot) or slot.step is Step.KEEPING)):
            void(turn, job, seat, claim)
            if slot is not None:
                reslot(turn, job, slot)
            continue
        finalise(turn, job, seat, claim, _IN_TIME)
        if slot is not None:
            _settle_slot(turn, job, slot)


def _contested(slot: Slot) -> bool:
    return slot.check is not None and slot.check.contested()


def _settle_slot(turn: Turn, job: Job, slot: Slot) -> None:
    if not any(other.fate is Fate.CLAIMED for other in slot.live()) and slot.step is not Step.FINAL:
        end_runs(turn, job, slot)
        set_step(job, slot, Step.FINAL)


_IN_TIME = Finding("cleared", "its account passed other checks, and its lease ended before this one was done")


def wind_up(turn: Turn, job: Job) -> None:
    """A job that is complete: everybody's last check, then the outcome. A cheat that is found now makes it incomplete
    again."""
    done = True
    for seat in list(job.seats):
        if seat.stage is Stage.OPEN:
            done = settle_seat(turn, job, seat) and done
    if not complete(job):
        turn.touch(job)
    elif done and not job.queue.checking and not job.queue.keeping:
        report(turn, job, Ending())


def wind_down(turn: Turn, job: Job) -> None:
    """A job that ends early. New checks are not begun; those under way are waited for, for a while. Claims of
    accounts that have proved themselves are cleared; of others, nothing is known and nothing is paid."""
    assert job.ending is not None, "only for jobs that end early"
    if job.ended_ms == 0:
        job.ended_ms = turn.now_ms
        _stop(turn, job)
    late = turn.now_ms >= job.ended_ms + turn.state.timing.audit_within
    check_of(job).stop(turn, job, late=late)
    if job.queue.checking or (not late and _settled_but_fetching(job)):
        return
    if any(claim.asked is not None for seat in job.present for claim in seat.claims.values()) and not late:
        return
    for seat in job.seats:
        _clear_or_void(turn, job, seat)
    report(turn, job, job.ending)


def _settled_but_fetching(job: Job) -> bool:
    """Finished work whose data is still on its way to us."""
    return any(job.slots[key].chosen() is not None for key in job.queue.keeping)


def _stop(turn: Turn, job: Job) -> None:
    """Cancel everything that is not a check."""
    for slot in job.slots:
        if slot.step is Step.RUNNING and slot.of is None:
            end_runs(turn, job, slot)
    job.market.searching = False
    break_off(job)


def _clear_or_void(turn: Turn, job: Job, seat: Seat) -> None:
    check = check_of(job)
    believed = check.believes(turn.state, job, seat.account)
    for claim in list(seat.claims.values()):
        if believed and claim.provisional:
            check.clear(turn, job, seat, claim)
        else:
            void(turn, job, seat, claim)


def report(turn: Turn, job: Job, ending: Ending) -> None:
    """The outcome, once; then the leases are closed."""
    if job.reported:
        return
    job.reported, job.ending, job.phase, job.ended_ms = True, ending, Phase.SETTLING, turn.now_ms
    job.market.searching = False
    turn.ask(ended_effect(job))
    if ending.code not in ("", "E1402"):
        turn.note(job, "failed", f"{ending.what} ({ending.code})")
    turn.note(job, "phase", "The leases are being settled.")


def ended_effect(job: Job) -> JobEnded:
    """The outcome of a job that has one."""
    ending = job.ending or Ending()
    return JobEnded(job.id, ending.code, ending.what, outputs(job))


def outputs(job: Job) -> tuple[TaskOutput | None, ...]:
    """The believed outputs in task order."""
    found: list[TaskOutput | None] = []
    for key in shape_of(job.spec.work).outputs(job):
        run = job.slots[key].chosen() if key is not None and job.slots[key].step is Step.FINAL else None
        found.append(run.output if run is not None else None)
    return tuple(found)


def settle(turn: Turn, job: Job) -> None:
    """After the outcome: close all leases. The job is over when all are closed but those of providers that are gone,
    whose escrow comes back when the lease ends."""
    break_off(job)
    for seat in job.present:
        if seat.stage is Stage.OPEN:
            close_seat(turn, job, seat)
    patience_over = turn.now_ms >= job.ended_ms + turn.state.timing.lost_after
    open_seats = [seat for seat in job.present if seat.mark not in (Mark.LOST, Mark.BANNED)]
    if job.over or (open_seats and not patience_over):
        return
    assert job.ending is not None, "it was reported"
    code = job.ending.code
    job.phase = {"": Phase.DONE, "E1402": Phase.CANCELLED}.get(code, Phase.FAILED)
    turn.note(job, "phase", f"The job is {job.phase.value}.", done=job.queue.finals, total=len(job.slots))
