"""Leases that live on lanes: getting them ready, and their claims, which come in batches under one root."""

from __future__ import annotations

from fallow.rules import trust
from fallow.rules.steward.checks.audit import UNASKED
from fallow.rules.steward.checks.standing import passed
from fallow.rules.steward.claims import Finding, Refuted, admit, finalise, hold, refute
from fallow.rules.steward.dispatch import fresh_sequence
from fallow.rules.steward.events import (
    AuditLane,
    AuditorsDrawn,
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
from fallow.rules.steward.state import Claim, Ending, Job, Mark, Seat, Stage, Turn

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
    claim = Claim(event.claim_hash, event.claim, event.units, first=event.first, count=event.count)
    seat.held_units += event.units
    admit(turn, seat, claim)
    if not job.policy.checks:
        finalise(turn, job, seat, claim, UNASKED)
    else:
        turn.ask(Draw(seat.lease, event.claim_hash, event.claim))
    if len(seat.claims) >= MAX_BATCHES:
        seat.mark = Mark.FULL


def drawn(turn: Turn, job: Job, seat: Seat, event: AuditorsDrawn | LedgerRefusedDraw) -> None:
    """The randomness of a batch. Where the bank refuses it, the batch is checked as if its account were new."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or batch.slot is not None or batch.seed:
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


def check(turn: Turn, job: Job, seat: Seat, batch: Claim, indexes: tuple[int, ...]) -> None:
    """Have the tasks at `indexes` done again; with none, or nobody to do so, the batch is provisional."""
    others: dict[bytes, bytes] = {}
    for number in job.live:
        other = job.seats[number]
        if other.usable and other.ready and other.account != seat.account:
            others.setdefault(other.account, other.lease)
    if not indexes:
        hold(turn, seat, batch)
        return
    if not others:
        if not can_recruit(job):
            turn.warn_once(job, "no auditor", "Answers cannot be checked now: there is no other provider that could.")
        hold(turn, seat, batch)
        return
    order = trust.auditor_order(batch.seed, others)
    auditors = tuple(others[account] for account in order)[:64]
    batch.since_ms = None
    batch.asked = AuditLane(seat.lease, batch.hash, batch.first, indexes, auditors, job.policy.quorum)
    turn.ask(batch.asked)


def audited(turn: Turn, job: Job, seat: Seat, event: LaneAudited) -> None:
    """The samples were right: the batch is final, and so is what is older than the window. Auditors learn nothing
    from it about themselves here: their own batches are sampled like anyone's."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or batch.asked is None:
        return
    text = f"{len(batch.asked.indexes)} of {batch.count} done again with equal answers"
    finalise(turn, job, seat, batch, Finding("checked", text))
    passed(turn, seat.account)


def caught(turn: Turn, job: Job, seat: Seat, event: LaneCaught) -> None:
    """Two or more accounts agree on another answer: the account is charged and banned."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or batch.asked is None:
        return
    text = f"A wrong answer; {len(event.others)} others agree on another."
    refute(turn, job, seat, batch, text, Refuted(event.task, event.accused, event.others))


def unchecked(turn: Turn, job: Job, seat: Seat, event: LaneUnchecked) -> None:
    """Nobody could do it again: the batch stays provisional."""
    batch = seat.claims.get(event.claim_hash)
    if batch is None or batch.asked is None:
        return
    hold(turn, seat, batch)
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
