"""Leases that live on lanes: getting them ready, and their claims, which come in batches under one root."""

from __future__ import annotations

from fallow.rules import trust
from fallow.rules.steward.checks.audit import ban
from fallow.rules.steward.dispatch import fresh_sequence
from fallow.rules.steward.events import (
    AuditLane,
    AuditorsDrawn,
    Charge,
    Draw,
    LaneAnswered,
    LaneAudited,
    LaneCaught,
    LaneReady,
    LaneUnchecked,
    LaneUnready,
    LedgerRefusedDraw,
    StewardEvent,
)
from fallow.rules.steward.hiring import can_recruit, decide_by_ms, leave_alone
from fallow.rules.steward.pay import finalise_batch, hold, passed
from fallow.rules.steward.state import Batch, Ending, Job, Mark, Seat, Stage, Turn
from fallow.wire.claims import task_id

MAX_INDEXES = 64
"""The most tasks of one batch that are done again: bounds the work that a large batch can cause."""
MAX_BATCHES = 10_000
"""Batches that may wait to be cleared on one lease; a provider that makes more gets no more work."""


def on_seat(turn: Turn, job: Job, seat: Seat, event: StewardEvent) -> None:
    """The events that only lanes have."""
    match event:
        case LaneReady():
            ready(turn, job, seat)
        case LaneUnready():
            unready(turn, job, seat, event)
        case LaneAnswered():
            answered(turn, job, seat, event)
        case LaneAudited():
            audited(turn, job, seat, event)
        case LaneCaught():
            caught(turn, job, seat, event)
        case LaneUnchecked():
            unchecked(turn, job, seat, event)
        case _:
            pass


def ready(turn: Turn, job: Job, seat: Seat) -> None:
    """The provider has loaded what lane tasks need."""
    if seat.usable and not seat.ready:
        seat.ready = True
        turn.note(job, "lease", "A provider is ready.", seat.node)


def unready(turn: Turn, job: Job, seat: Seat, event: LaneUnready) -> None:
    """The provider cannot load the work. When two say that it is the work's own fault, or the only one does, it is."""
    if not seat.usable or seat.ready:
        return
    seat.mark, job.alone = Mark.LEAVING, False
    turn.note(job, "failed", f"A provider could not get ready: {event.what} ({event.code})", seat.node)
    leave_alone(turn, job, seat.node, passing=event.retryable)
    if event.retryable or not event.code.startswith("E17"):
        return
    job.accusers[seat.account] = event.code
    if job.ending is None and list(job.accusers.values()).count(event.code) > 1:
        job.ending = Ending("E1403", f"providers cannot load it: {event.what} ({event.code})")


def condemned(job: Job) -> None:
    """A single provider's word against the work is enough when there is nobody else to ask."""
    if job.accusers and job.alone and not any(job.seats[n].usable or job.seats[n].negotiating for n in job.live):
        code = next(iter(job.accusers.values()))
        job.ending = Ending("E1403", f"the only provider cannot load it ({code})")


def answered(turn: Turn, job: Job, seat: Seat, event: LaneAnswered) -> None:
    """A batch was claimed. Its units are held against the cap; what exceeds the cap is never paid."""
    if not fresh_sequence(seat, event.sequence) or job.lanes is None or seat.mark is Mark.BANNED:
        return
    # A claim that is told again after it was paid, or a second root over the same answers, would be paid twice.
    if seat.stage is not Stage.OPEN or event.first < seat.lane_next or turn.now_ms >= decide_by_ms(seat):
        return
    seat.lane_next = event.first + event.count
    batch = Batch(event.claim, event.claim_hash, event.first, event.count, event.units, since_ms=turn.now_ms)
    seat.batches[event.claim_hash] = batch
    turn.state.claims[event.claim_hash] = seat.lease
    seat.tasks_claimed += event.count
    seat.units_claimed += event.units
    seat.held_units += event.units
    if not job.policy.checks:
        finalise_batch(turn, job, seat, batch, "none", "the job asked for no checks")
    else:
        turn.ask(Draw(seat.lease, event.claim_hash, event.claim))
    if len(seat.batches) >= MAX_BATCHES:
        seat.mark = Mark.FULL


def drawn(turn: Turn, job: Job, seat: Seat, event: AuditorsDrawn | LedgerRefusedDraw) -> None:
    """The randomness of a batch. Where the bank refuses it, the batch is checked as if its account were new."""
    batch = seat.batches.get(event.claim_hash)
    if batch is None or batch.seed:
        return
    standing = turn.state.standing(seat.account)
    if isinstance(event, AuditorsDrawn):
        batch.seed = event.seed
        indexes = trust.sample_indexes(job.policy, standing, batch.seed, batch.count, MAX_INDEXES)
    else:
        batch.seed = event.claim_hash
        indexes = trust.sample_indexes(job.policy, trust.Standing(), batch.seed, batch.count, MAX_INDEXES)
    seat.closing_check = False
    check(turn, job, seat, batch, indexes)


def check(turn: Turn, job: Job, seat: Seat, batch: Batch, indexes: tuple[int, ...]) -> None:
    """Have the tasks at `indexes` done again; with none, or nobody to do so, the batch is provisional."""
    others: dict[bytes, bytes] = {}
    for number in job.live:
        other = job.seats[number]
        if other.usable and other.ready and other.account != seat.account:
            others.setdefault(other.account, other.lease)
    if not indexes:
        hold(turn.state, seat, batch.claim_hash, batch.seed)
        return
    if not others:
        if not can_recruit(job):
            turn.warn_once(job, "no auditor", "Answers cannot be checked now: there is no other provider that could.")
        hold(turn.state, seat, batch.claim_hash, batch.seed)
        return
    seat.provisional.pop(batch.claim_hash, None)
    order = trust.auditor_order(batch.seed, others)
    batch.checking, batch.indexes, batch.since_ms = True, indexes, turn.now_ms
    batch.auditors = tuple(others[account] for account in order)[:64]
    turn.ask(audit_effect(job, seat, batch))


def audit_effect(job: Job, seat: Seat, batch: Batch) -> AuditLane:
    """The check of a batch that is under way."""
    return AuditLane(
        seat.lease, batch.claim_hash, batch.first, batch.indexes, batch.auditors, job.policy.quorum
    )  # fmt: skip


def audited(turn: Turn, job: Job, seat: Seat, event: LaneAudited) -> None:
    """The samples were right: the batch is final, and so is what is older than the window. Auditors learn nothing
    from it about themselves here: their own batches are sampled like anyone's."""
    batch = seat.batches.get(event.claim_hash)
    if batch is None or not batch.checking:
        return
    text = f"{len(batch.indexes)} of {batch.count} done again with equal answers"
    finalise_batch(turn, job, seat, batch, "checked", text)
    passed(turn, seat.account)


def caught(turn: Turn, job: Job, seat: Seat, event: LaneCaught) -> None:
    """Two or more accounts agree on another answer: the account is charged and banned."""
    batch = seat.batches.get(event.claim_hash)
    if batch is None or not batch.checking:
        return
    turn.note(job, "caught", f"A wrong answer; {len(event.others)} others agree on another.", seat.node)
    stake = seat.leased.stake_ucr
    task = bytes(task_id(event.task))
    if stake:
        charge = Charge(seat.lease, task, event.task, event.accused, event.others, stake)
        seat.charges[task] = charge
        turn.ask(charge)
    ban(turn, seat.account)


def unchecked(turn: Turn, job: Job, seat: Seat, event: LaneUnchecked) -> None:
    """Nobody could do it again: the batch stays provisional."""
    batch = seat.batches.get(event.claim_hash)
    if batch is None or not batch.checking:
        return
    batch.checking = False
    hold(turn.state, seat, batch.claim_hash, batch.seed)
    turn.warn_once(job, "no auditor", f"Answers could not be checked: {event.what}"[:300])


def fill_up(job: Job) -> None:
    """A lane whose cap is nearly used up gets no more tasks; another lease takes its place while the budget lasts."""
    for number in job.live:
        seat = job.seats[number]
        if seat.usable and seat.price_ucr and seat.room_units() < lane_reserve(seat):
            seat.mark = Mark.FULL


def lane_reserve(seat: Seat) -> int:
    """Units kept free under a cap for what is under way on the lane when it is full: a sixteenth of it."""
    return max(1, seat.leased.cap_ucr * 1_000 // seat.price_ucr // 16)
