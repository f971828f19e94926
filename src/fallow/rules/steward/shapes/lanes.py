"""Leases that live on lanes: getting them ready, and their claims, which come in batches under one root."""

from __future__ import annotations

from fallow.rules.steward.check import check_of
from fallow.rules.steward.claims import admit
from fallow.rules.steward.dispatch import fresh_sequence
from fallow.rules.steward.events import (
    Draw,
    LaneAnswered,
    LaneReady,
    LaneUnready,
    StewardEvent,
)
from fallow.rules.steward.hiring import decide_by_ms, leave_alone
from fallow.rules.steward.state import Claim, Ending, Job, Mark, Seat, Stage, Turn

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
        case _:
            check_of(job).heard(turn, job, seat, event)


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
    check = check_of(job)
    if check.draws:
        turn.ask(Draw(seat.lease, event.claim_hash, event.claim))
    else:
        check.begin(turn, job, seat, claim)
    if len(seat.claims) >= MAX_BATCHES:
        seat.mark = Mark.FULL


def fill_up(job: Job) -> None:
    """A lane whose cap is nearly used up gets no more tasks; another lease takes its place while the budget lasts."""
    for number in job.live:
        seat = job.seats[number]
        if seat.usable and seat.price_ucr and seat.room_units() < lane_reserve(seat):
            seat.mark = Mark.FULL


def lane_reserve(seat: Seat) -> int:
    """Units kept free under a cap for what is under way on the lane when it is full: a sixteenth of it."""
    return max(1, seat.leased.cap_ucr * 1_000 // seat.price_ucr // 16)
