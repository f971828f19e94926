"""Tasks on leases: handing out, taking claims, failures, lost and leaving providers, and the blobs that claims
consist of."""

from __future__ import annotations

from fallow.kinds.registry import metered
from fallow.rules import jobs
from fallow.rules.jobs import FreeSeat, blame, choose_place, deadline_ms
from fallow.rules.membership import Presence
from fallow.rules.steward.blobs import MAX_SOURCES, keep_parts, learn_holders
from fallow.rules.steward.check import check_of
from fallow.rules.steward.claims import admit, annul, claim_of, void_run
from fallow.rules.steward.events import (
    Assign,
    AuditorsDrawn,
    BlobKept,
    BlobMissing,
    Draw,
    LedgerRefusedDraw,
    PeerClaimed,
    PeerFailed,
    PeerLeaving,
)
from fallow.rules.steward.hiring import leave_alone
from fallow.rules.steward.shape import shape_of
from fallow.rules.steward.slots import begun, blame_run, end_run, reslot, respec, run_of, set_step, stop_seat, strike
from fallow.rules.steward.specs import well_formed
from fallow.rules.steward.state import NEVER_MS, Claim, Fate, Job, Mark, Run, Seat, Slot, Stage, Step, Turn
from fallow.wire.messages import NodeAddress

MAX_PASSED_OVER = 64
"""How many waiting tasks that nobody may take are looked past for one that somebody may."""
NOBODY: frozenset[bytes] = frozenset()


def plan(turn: Turn, job: Job) -> None:
    """Checks first, since money and rounds wait for them; then waiting tasks, in order, while somebody has room."""
    check_of(job).tick(turn, job)
    if not job.queue.waiting:
        return
    depth, passed_over = job.depth, 0
    free = [seat for seat in job.usable if len(seat.running) < depth]
    for key in list(job.queue.waiting) if free else ():
        free = [seat for seat in free if seat.usable and len(seat.running) < depth]
        if not free or passed_over > MAX_PASSED_OVER:
            return
        slot = job.slots[key]
        if slot.of is not None:
            seat = check_of(job).place(turn, job, slot, free)
        else:
            seat = _place(job, slot, [seat for seat in free if not seat.outside])
        if seat is None:
            passed_over += 1
            continue
        set_step(job, slot, Step.RUNNING)
        slot.prefer = seat.number
        assign(turn, job, slot, seat)


def _place(job: Job, slot: Slot, free: list[Seat]) -> Seat | None:
    """Where the slot's task goes now; None when it has to wait. A provider that failed the task does not get it again
    under the same id; where all have, it gets a new id."""
    tried: frozenset[bytes] = frozenset(run.account for run in slot.runs if run.task == slot.task)
    if tried and tried.issuperset(seat.account for seat in job.workers):
        respec(job, slot, slot.spec)
        tried = NOBODY
    avoid = {seat.account: seat.strikes for seat in free if seat.strikes}
    for attempt in slot.attempts:
        avoid[attempt.account] = avoid.get(attempt.account, 0) + 1
    places = [
        FreeSeat(seat.number, seat.account, len(seat.running), job.depth, seat.room_units(), seat.units_per_s)
        for seat in free
    ]
    prefer = slot.prefer if slot.prefer is not None and job.seats[slot.prefer].account not in avoid else None
    number = choose_place(places, slot.spec.units, avoid=avoid, never=tried, prefer=prefer)
    return None if number is None else job.seats[number]


def fresh_sequence(seat: Seat, sequence: int) -> bool:
    """Whether a durable lease event is new: the provider numbers them and they come in order. 0 is for facts that are
    not its own."""
    if sequence <= seat.sequence:
        return sequence == 0
    seat.sequence = sequence
    return True


def claimed(turn: Turn, job: Job, seat: Seat, event: PeerClaimed) -> None:
    """A provider says that it has done a task. Only what was asked of this lease and still runs counts; a claim hash
    that is known already (a replay under another task) does not."""
    seat.sequence = max(seat.sequence, event.sequence)
    key = seat.running.get(event.task)
    if key is None or event.claim_hash in turn.state.claims:
        return
    slot = job.slots[key]
    run = run_of(slot, seat, event.task)
    if run is None:
        return
    seat.running.pop(event.task)
    run.fate, run.answer, run.output, run.root = Fate.CLAIMED, event.digest, event.output, event.claim
    run.claim_hash, run.holders = event.claim_hash, event.holders
    units = metered(run.spec, event.output)
    seat.money.held_units -= run.spec.units - units
    admit(turn, seat, Claim(event.claim_hash, event.claim, units, slot.key))
    unfit = _unfit(turn, job, slot, run)
    if unfit:
        turn.note(job, "failed", f"Task {slot.key}: {unfit}; it is refused.", seat.node)
        blame_run(turn, job, slot, run, "E1102", what=unfit)
        void_run(turn, job, run)
        reslot(turn, job, slot)
        return
    learn_holders(job, run)
    if slot.step is Step.CHECKING or (slot.of is not None and slot.step is Step.RUNNING):
        check_of(job).answered(turn, job, slot, run)
    elif slot.step is Step.RUNNING:
        set_step(job, slot, Step.KEEPING)
        if check_of(job).draws:
            turn.ask(Draw(seat.lease, event.claim_hash, event.claim))
        decide(turn, job, slot)


def _unfit(turn: Turn, job: Job, slot: Slot, run: Run) -> str:
    """Why a claim is worth nothing as it stands, whatever a check would find; "" when it may be worth something."""
    if not well_formed(job, slot, run):
        return "the answer is not what such a task gives"
    return shape_of(job.spec.work).refused(turn, job, slot, run)


def drawn(turn: Turn, job: Job, seat: Seat, event: AuditorsDrawn | LedgerRefusedDraw) -> None:
    """The randomness of a claim. Where the bank refuses it, the claim's own hash stands in, and the claim is
    checked."""
    claim = seat.claims.get(event.claim_hash)
    if claim is None or claim.seed:
        return
    claim.seed = event.seed if isinstance(event, AuditorsDrawn) else event.claim_hash
    claim.drawn = event.drawn if isinstance(event, AuditorsDrawn) else ()
    job.market.seed, job.market.drawn = claim.seed, claim.drawn
    if claim.slot is None:
        check_of(job).begin(turn, job, seat, claim)
        return
    slot = job.slots[claim.slot]
    slot.forced = slot.forced or isinstance(event, LedgerRefusedDraw)
    decide(turn, job, slot)


def decide(turn: Turn, job: Job, slot: Slot) -> None:
    """A slot in KEEPING: when all that its claim consists of is here, it is for the check, and final when that has
    found it so."""
    run = slot.leading()
    if slot.step is not Step.KEEPING or run is None or run.output is None or not keep_parts(turn, job, slot, run):
        return
    claim, check = claim_of(job, run), check_of(job)
    if claim is not None and (claim.seed or not check.draws):
        slot.answer = run.answer
        job.seats[run.seat].strikes = 0
        check.begin(turn, job, job.seats[run.seat], claim)
    if slot.step is Step.KEEPING and run.fate is Fate.FINAL:
        set_step(job, slot, Step.FINAL)


def assign(turn: Turn, job: Job, slot: Slot, seat: Seat) -> None:
    """Give the slot's task to a seat, as original or as hidden duplicate: it looks the same to the provider."""
    deadline = deadline_ms(turn.now_ms, slot.spec.timeout_s)
    run = Run(seat.number, seat.account, slot.task, slot.spec, deadline)
    slot.runs.append(run)
    job.queue.due_ms = min(job.queue.due_ms, deadline)
    seat.running[slot.task] = slot.key
    seat.money.held_units += slot.spec.units
    turn.ask(assign_effect(job, seat, run))


def assign_effect(job: Job, seat: Seat, run: Run) -> Assign:
    """Send the run's task, and say who holds the inputs that other providers made."""
    sources: dict[bytes, NodeAddress] = {}
    for part in run.spec.inputs:
        for address in job.blobs.holders.get(part.blob, ()):
            sources.setdefault(address.node, address)
    known = tuple(address for address in sources.values() if address.node != seat.node)
    return Assign(seat.lease, seat.peer, run.task, run.spec, known[:MAX_SOURCES])


def failed(turn: Turn, job: Job, seat: Seat, event: PeerFailed) -> None:
    """A task ended without output at this seat. Where it ended because no more work is done under the lease, that is no
    failure: the provider leaves, whose owner may be back."""
    seat.sequence = max(seat.sequence, event.sequence)
    if event.code in jobs.LEFT:
        leaving(turn, job, seat, PeerLeaving(event.at_ms, event.lease, event.sequence, event.what[:200]))
    key = seat.running.get(event.task)
    if key is None:
        return
    slot = job.slots[key]
    run = run_of(slot, seat, event.task)
    if run is None:
        return
    end_run(turn, job, run, cancel=False)
    whose = blame(event.code, retryable=event.retryable)
    blame_run(turn, job, slot, run, event.code, whose, event.what)
    turn.note(job, "failed", f"Task {slot.key} failed: {event.what} ({event.code})", seat.node)
    reslot(turn, job, slot)


def leaving(turn: Turn, job: Job, seat: Seat, event: PeerLeaving) -> None:
    """The provider stops working under the lease: what runs there moves; what it claimed stays and is settled."""
    seat.sequence = max(seat.sequence, event.sequence)
    if seat.stage is not Stage.OPEN or seat.mark is not Mark.NONE:
        return
    seat.mark = Mark.LEAVING
    turn.note(job, "lease", f"A provider leaves: {event.reason}", seat.node)
    stop_seat(turn, job, seat, cancel=False)


def closed(turn: Turn, job: Job, seat: Seat) -> None:
    """The escrow is gone: what runs there would not be paid and moves."""
    if job.ending is None:
        stop_seat(turn, job, seat, cancel=True)
    if not _seats_on(turn, seat.node) and turn.state.roll.see(seat.node):
        # Nobody watches a node without a lease, so nobody would ever say that it is back: it may be asked again later.
        leave_alone(turn, job, seat.node, passing=True)


def unobserved(turn: Turn, node: bytes) -> None:
    """Nobody is dead yet. Only nodes with a lease are watched."""
    if any(True for _ in _seats_on(turn, node)):
        turn.state.roll.lose_sight(node, turn.now_ms)
        for job, seat in _seats_on(turn, node):
            turn.note(job, "lease", "A provider cannot be observed just now.", seat.node)


def observed(turn: Turn, node: bytes) -> None:
    """The node is there; it is as if it had never been away."""
    turn.state.roll.see(node)


def _seats_on(turn: Turn, node: bytes) -> list[tuple[Job, Seat]]:
    return [
        (job, seat)
        for job in turn.state.jobs.values()
        for seat in job.present
        if seat.node == node and seat.stage is Stage.OPEN
    ]


def bury(turn: Turn, job: Job) -> None:
    """Seats on nodes that nobody has heard of until the deadline are lost; their tasks move."""
    state = turn.state
    for seat in job.present if state.roll.since else ():
        presence = state.roll.presence(seat.node, turn.now_ms, state.timing.lost_after)
        if seat.stage is Stage.OPEN and seat.mark in (Mark.NONE, Mark.FULL) and presence is Presence.DEAD:
            seat.mark = Mark.LOST
            turn.note(job, "lease", "A provider was not heard of for too long; its work moves.", seat.node)
            stop_seat(turn, job, seat, cancel=False)


def overdue_tasks(turn: Turn, job: Job) -> None:
    """Tasks past their deadline are taken away and given to somebody else."""
    if turn.now_ms < job.queue.due_ms:
        return
    for seat in job.seats:
        for run in job.runs_on(seat):
            if run.fate is Fate.RUNNING and turn.now_ms >= run.deadline_ms:
                slot = job.slots[job.tasks[run.task]]
                end_run(turn, job, run, cancel=True)
                blame_run(turn, job, slot, run, "E1802")
                turn.note(job, "failed", f"Task {slot.key} took too long at a provider; it moves.", seat.node)
                reslot(turn, job, slot)
    left = (run.deadline_ms for seat in job.seats for run in job.runs_on(seat))
    job.queue.due_ms = min(left, default=NEVER_MS)


def extend_deadlines(turn: Turn, job: Job) -> None:
    """The steward was away: work went on meanwhile, only nobody listened."""
    for seat in job.seats:
        for run in job.runs_on(seat):
            run.deadline_ms = jobs.after_absence_ms(run.deadline_ms, turn.now_ms)


def blob_kept(turn: Turn, job: Job, event: BlobKept) -> None:
    """A blob is in our own store: claims that consist of it may count now."""
    if job.blobs.kept.get(event.blob) is not False:
        return
    job.blobs.kept[event.blob] = True
    shape_of(job.spec.work).arrived(turn, job, event.blob)
    for slot in _keeping(job):
        decide(turn, job, slot)


def blob_missing(turn: Turn, job: Job, event: BlobMissing) -> None:
    """A claim without its data is worth nothing; a check without its input cannot be made."""
    if job.blobs.kept.get(event.blob) is not False:
        return
    del job.blobs.kept[event.blob]
    job.blobs.missing[event.blob] = None
    for slot in _keeping(job):
        for run in slot.live():
            if run.output is not None and any(part.blob == event.blob for part in run.output.parts):
                _no_data(turn, job, slot)
                break
    for key in list(job.queue.checking):
        slot = job.slots[key]
        if any(part.blob == event.blob for part in slot.spec.inputs):
            carry_lost(turn, job, slot, event.blob)
        elif any(part.blob == event.blob for own in begun(job, slot) for part in own.spec.inputs):
            _no_data(turn, job, slot)  # it claimed states that it does not show


def _no_data(turn: Turn, job: Job, slot: Slot) -> None:
    """Nobody who claimed the slot's answer delivers its blobs. Claims that were confirmed stay so; the work is done
    again."""
    for run in slot.live():
        blame_run(turn, job, slot, run, "E1602")
        void_run(turn, job, run)
    slot.answer = b""
    if not slot.retired:
        respec(job, slot, slot.spec)
    reslot(turn, job, slot)


def _keeping(job: Job) -> list[Slot]:
    return [job.slots[key] for key in list(job.queue.keeping)]


def _maker(job: Job, blob: bytes) -> Run | None:
    chosen = (run for slot in job.slots if (run := slot.chosen()) is not None and run.output is not None)
    return next((run for run in chosen if run.output and any(part.blob == blob for part in run.output.parts)), None)


def carry_lost(turn: Turn, job: Job, slot: Slot, blob: bytes) -> None:
    """A check needs an input that its maker withholds: no claim that builds on it counts. It is held against the
    maker, who need not be the one that built on it."""
    maker = _maker(job, blob)
    if maker is not None:
        strike(turn, job, job.seats[maker.seat])
    annul(turn, job, slot, "E1602")
    reslot(turn, job, slot)
