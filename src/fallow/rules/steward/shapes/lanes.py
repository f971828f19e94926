"""Leases that live on lanes: getting them ready, and their claims, which come in batches under one root."""

from __future__ import annotations

from fallow.errors import WORKLOAD_CODES
from fallow.kinds.registry import kind_named, lane_side
from fallow.rules import market
from fallow.rules.steward.check import check_of
from fallow.rules.steward.claims import admit
from fallow.rules.steward.dispatch import fresh_sequence
from fallow.rules.steward.events import (
    Draw,
    LaneLoaded,
    LaneUnready,
    PeerClaimedBatch,
    StewardEvent,
)
from fallow.rules.steward.hiring import decide_by_ms, leave_alone
from fallow.rules.steward.shape import LaneTerms, Shape, shape_of
from fallow.rules.steward.slots import strike
from fallow.rules.steward.state import Claim, Ending, Job, Mark, Seat, Stage, Turn
from fallow.wire.local import JobSpec, LaneJob, ServeJob, Work
from fallow.wire.tasks import Part

MAX_BATCHES = 10_000
"""Batches that may wait to be cleared on one lease; a provider that makes more gets no more work."""


class LaneShape(Shape):
    """Leases that answer small tasks of one kind."""

    name = "lane"
    on_lanes = True
    progress_text = ""

    def refuse(self, spec: JobSpec) -> str:
        name = spec.work.workload
        return "" if kind_named(name).lane is not None else f"{name} has no lanes"

    def inputs(self, work: Work) -> list[bytes]:
        return [part.blob for part in self.lane(work).inputs]

    def volume(self, spec: JobSpec) -> market.Volume:
        units = lane_side(spec.work.workload).usual_units(_work(spec))
        return market.Volume(1, units, units, open_ended=True)

    def seats(self, spec: JobSpec) -> int:
        return max(1, _work(spec).replicas)

    def lane(self, work: Work) -> LaneTerms:
        return LaneTerms()

    def start(self, turn: Turn, job: Job) -> None:
        pass

    def advance(self, turn: Turn, job: Job) -> None:
        condemned(job)

    def heard(self, turn: Turn, job: Job, seat: Seat, event: StewardEvent) -> None:
        match event:
            case LaneLoaded():
                ready(turn, job, seat)
            case LaneUnready():
                unready(turn, job, seat, event)
            case PeerClaimedBatch():
                answered(turn, job, seat, event)
            case _:
                super().heard(turn, job, seat, event)

    def fill_up(self, job: Job) -> None:
        """A lane whose cap is nearly used up gets no more tasks."""
        for seat in job.usable:
            if seat.money.price_ucr and seat.room_units() < lane_reserve(seat):
                seat.mark = Mark.FULL

    def complete(self, job: Job) -> bool:
        return False

    def progress(self, job: Job) -> tuple[int, int]:
        return sum(seat.tasks_claimed for seat in job.seats), 0


class ServeShape(LaneShape):
    """Leases that hold a model and answer under its name."""

    name = "serve"

    def lane(self, work: Work) -> LaneTerms:
        assert isinstance(work, ServeJob), "it is registered for these"
        inputs = (Part("model", work.model, 0),)
        inputs += (Part("adapter", work.adapter, 0),) if work.adapter else ()
        return LaneTerms(inputs, work.context_tokens, work.exact, work.name)


def _work(spec: JobSpec) -> ServeJob | LaneJob:
    assert isinstance(spec.work, (ServeJob, LaneJob)), "it is registered for these"
    return spec.work


def ready(turn: Turn, job: Job, seat: Seat) -> None:
    """The provider has loaded what lane tasks need."""
    if seat.usable and not seat.lane.ready:
        seat.lane.ready = True
        turn.note(job, "lease", "A provider is ready.", seat.node)


def unready(turn: Turn, job: Job, seat: Seat, event: LaneUnready) -> None:
    """The provider cannot load the work. When two say that it is the work's own fault, or the only one does, it is."""
    if not seat.usable or seat.lane.ready:
        return
    seat.mark, job.market.alone = Mark.LEAVING, False
    turn.note(job, "failed", f"A provider could not get ready: {event.what} ({event.code})", seat.node)
    leave_alone(turn, job, seat.node, passing=event.retryable)
    if event.retryable or event.code not in WORKLOAD_CODES:
        return
    job.market.accusers[seat.account] = event.code
    if job.ending is None and list(job.market.accusers.values()).count(event.code) > 1:
        job.ending = Ending("E1403", f"providers cannot load it: {event.what} ({event.code})")


def condemned(job: Job) -> None:
    """A single provider's word against the work is enough when there is nobody else to ask."""
    accusers = job.market.accusers
    if accusers and job.market.alone and not any(seat.usable or seat.negotiating for seat in job.present):
        code = next(iter(accusers.values()))
        job.ending = Ending("E1403", f"the only provider cannot load it ({code})")


def answered(turn: Turn, job: Job, seat: Seat, event: PeerClaimedBatch) -> None:
    """A batch was claimed. Its units are held against the cap; what exceeds the cap is never paid."""
    if not fresh_sequence(seat, event.sequence) or not shape_of(job.spec.work).on_lanes or seat.mark is Mark.BANNED:
        return
    # A claim that is told again after it was paid, or a second root over the same answers, would be paid twice.
    if seat.stage is not Stage.OPEN or event.first < seat.lane.next or turn.now_ms >= decide_by_ms(seat):
        return
    seat.lane.next = event.first + event.count
    paid = event.count if event.paid is None else event.paid
    claim = Claim(event.claim_hash, event.claim, event.units, first=event.first, count=event.count, paid=paid)
    seat.money.held_units += event.units
    admit(turn, seat, claim)
    check = check_of(job)
    if check.draws:
        turn.ask(Draw(seat.lease, event.claim_hash, event.claim))
    else:
        check.begin(turn, job, seat, claim)
    if 2 * event.refused > event.count:
        strike(turn, job, seat)
    else:
        seat.strikes = 0
    if len(seat.claims) >= MAX_BATCHES:
        seat.mark = Mark.FULL


def lane_reserve(seat: Seat) -> int:
    """Units kept free under a cap for what is under way on the lane when it is full: a sixteenth of it."""
    return max(1, seat.leased.cap_ucr * 1_000 // seat.money.price_ucr // 16)
