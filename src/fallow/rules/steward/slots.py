"""Slots and the runs in them: the only place that moves them from step to step and keeps the counts true."""

from __future__ import annotations

from fallow.rules import jobs
from fallow.rules.jobs import Attempt, Blame
from fallow.rules.steward.events import Cancel
from fallow.rules.steward.state import Ending, Fate, Job, Mark, Run, Seat, Slot, Step, Turn
from fallow.wire.claims import task_id
from fallow.wire.tasks import TaskSpec

MAX_STRIKES = 3
"""Failures in a row after which a seat is given up."""
MAX_FAILURES = 4
"""Failures after which a seat is given up once they are more than its answers: who refuses most of what it signed for
may be choosing what it is paid for."""
MAX_CHECK_ATTEMPTS = 3
"""Failures after which a check that has a slot of its own is given up."""
SHUNNED_MS = 600_000
"""How long a job does without a provider that failed too often."""


def add_slot(job: Job, spec: TaskSpec, *, forced: bool = False, of: int | None = None) -> Slot:
    """A new slot that waits for a provider. A check's own (`of` another slot) waits before all others: money and rounds
    wait for it, and it is short."""
    slot = Slot(len(job.slots), spec, b"", forced=forced, of=of)
    job.slots.append(slot)
    job.queue.unusable += 1
    job.queue.waiting[slot.key] = None
    if of is not None:
        job.queue.waiting = {slot.key: None} | job.queue.waiting
    respec(job, slot, spec)
    return slot


def respec(job: Job, slot: Slot, spec: TaskSpec) -> None:
    """Give the slot `spec` under an id of its own: where the id was used before (a provider that failed a task does not
    start it again), the time limit is a second longer, which changes nothing but the id."""
    task = bytes(task_id(spec))
    while task in job.tasks:
        spec = TaskSpec(
            spec.kind, spec.params, spec.inputs, spec.seed, spec.units, spec.timeout_s + 1, spec.ram_bytes
        )  # fmt: skip
        task = bytes(task_id(spec))
    job.tasks[task] = slot.key
    slot.spec, slot.task = spec, task


def set_step(job: Job, slot: Slot, step: Step) -> None:
    """Move the slot; every count and queue of the job follows."""
    if not slot.retired:
        job.queue.unusable += slot.usable - (step in (Step.PROVISIONAL, Step.FINAL))
        job.queue.finals += (step is Step.FINAL) - (slot.step is Step.FINAL)
    job.queue.waiting.pop(slot.key, None)
    if step is not Step.CHECKING:
        job.queue.checking.pop(slot.key, None)
        job.queue.wanting.pop(slot.key, None)
    slot.step = step
    if step is Step.WAITING:
        job.queue.waiting[slot.key] = None
    elif step is Step.CHECKING:
        job.queue.checking[slot.key] = job.queue.wanting[slot.key] = None
    if step is Step.KEEPING:
        job.queue.keeping[slot.key] = None
    else:
        job.queue.keeping.pop(slot.key, None)
    job.moved = job.moved or (job.form is not None and slot.of is None)


def end_run(turn: Turn, job: Job, run: Run, *, cancel: bool) -> None:
    """A run that is under way ends without an answer; nothing is owed for it."""
    if run.fate is not Fate.RUNNING:
        return
    seat = job.seats[run.seat]
    run.fate = Fate.ENDED
    seat.running.pop(run.task, None)
    seat.money.held_units -= run.spec.units
    if cancel:
        turn.ask(Cancel(seat.lease, seat.peer, run.task))


def end_runs(turn: Turn, job: Job, slot: Slot) -> None:
    """All that is under way for the slot is called off."""
    for run in slot.running():
        end_run(turn, job, run, cancel=True)


def blame_run(
    turn: Turn, job: Job, slot: Slot, run: Run, code: str = "", blame: Blame = Blame.PLACE, what: str = ""
) -> None:
    """Remember a failed attempt, and hold it against the seat."""
    slot.attempts.append(Attempt(run.account, blame, code, what))
    strike(turn, job, job.seats[run.seat])


def strike(turn: Turn, job: Job, seat: Seat) -> None:
    """A seat that fails several times in a row, or mostly, gets no more work from this job for a while."""
    seat.strikes += 1
    seat.failures += 1
    mostly = seat.failures >= MAX_FAILURES and seat.failures > seat.tasks_claimed
    if (seat.strikes >= MAX_STRIKES or mostly) and seat.usable:
        seat.mark, seat.suspect = Mark.LEAVING, True
        job.market.refused[seat.node] = turn.now_ms + SHUNNED_MS
        turn.note(job, "lease", "A provider failed too often; its work moves.", seat.node)


def reslot(turn: Turn, job: Job, slot: Slot) -> None:
    """After runs of the slot ended or were voided: go on with what is left, wait for another provider, or give up."""
    if slot.step is Step.FINAL or slot.step is Step.DROPPED:
        return
    if slot.of is not None and not serves(job, slot):
        retire(turn, job, slot)
    live = slot.live()
    if any(run.answer == slot.answer for run in live) and slot.usable:
        return
    if live and slot.step in (Step.CHECKING, Step.PROVISIONAL):
        slot.answer = live[0].answer
        set_step(job, slot, Step.CHECKING)
        return
    if live or (slot.running() and slot.step is Step.RUNNING):
        return
    slot.answer = b""
    if slot.check is not None:
        slot.check.forget()
    drop_check(turn, job, slot)
    if slot.retired:
        end_runs(turn, job, slot)
        set_step(job, slot, Step.DROPPED)
        return
    first, *others = slot.running() or [None]
    if first is not None:
        for run in others:
            if run is not None:
                end_run(turn, job, run, cancel=True)
        set_step(job, slot, Step.RUNNING)
        return
    set_step(job, slot, Step.WAITING)
    _give_up(turn, job, slot)


def serves(job: Job, slot: Slot) -> bool:
    """Whether a slot of the check's own is still good for anything."""
    about = None if slot.of is None else job.slots[slot.of].check
    return about is not None and about.serves(slot.key)


def begun(job: Job, slot: Slot) -> list[Slot]:
    """The slots of the check's own that the decision about the slot waits for."""
    return [] if slot.check is None else [job.slots[key] for key in slot.check.begun()]


def drop_check(turn: Turn, job: Job, slot: Slot) -> None:
    """What was begun to check the slot is needed no more, or cannot be done."""
    own = begun(job, slot)
    if slot.check is not None:
        slot.check.drop()
    for one in own:
        retire(turn, job, one)
        if slot.step is Step.CHECKING:
            job.queue.wanting[slot.key] = None


def _give_up(turn: Turn, job: Job, slot: Slot) -> None:
    if slot.of is not None:
        if len(slot.attempts) >= MAX_CHECK_ATTEMPTS:  # then the whole task is done again
            drop_check(turn, job, job.slots[slot.of])
        return
    usable = {seat.account for seat in job.workers}
    left = usable - {attempt.account for attempt in slot.attempts}
    if jobs.judge(slot.attempts, len(left)) is jobs.AfterFailure.GIVE_UP and job.ending is None:
        last = slot.attempts[-1]
        why = f"{last.what[:200]} ({last.code})" if last.what else last.code or "providers were lost"
        job.ending = Ending("E1403", f"task {slot.key} failed {len(slot.attempts)} times; last: {why}")


def retire(turn: Turn, job: Job, slot: Slot) -> None:
    """Nobody needs the slot's answer any more. What is running is stopped; what was claimed still gets its due."""
    if slot.retired:
        return
    if not slot.usable:
        job.queue.unusable -= 1
    job.queue.finals -= slot.step is Step.FINAL
    slot.retired = True
    if slot.step is not Step.CHECKING:
        end_runs(turn, job, slot)
    if slot.step in (Step.WAITING, Step.RUNNING):
        set_step(job, slot, Step.DROPPED)


def stop_seat(turn: Turn, job: Job, seat: Seat, *, cancel: bool) -> None:
    """All that runs on the seat moves elsewhere."""
    for key in dict.fromkeys(seat.running.values()):
        slot = job.slots[key]
        for run in slot.running():
            if run.seat == seat.number:
                end_run(turn, job, run, cancel=cancel)
                blame_run(turn, job, slot, run)
        reslot(turn, job, slot)


def run_of(slot: Slot, seat: Seat, task: bytes) -> Run | None:
    """The seat's run of the task that is under way."""
    for run in reversed(slot.runs):
        if run.seat == seat.number and run.task == task and run.fate is Fate.RUNNING:
            return run
    return None
