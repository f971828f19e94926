"""Training rounds on slots: opens them, closes them when they may be, rolls the log back when an update proves
false."""

from __future__ import annotations

from collections.abc import Iterator

from fallow.kinds.registry import kind_named
from fallow.rules import market, rounds
from fallow.rules.rounds import Log, RoundEntry
from fallow.rules.steward.check import check_of
from fallow.rules.steward.events import Prefetch
from fallow.rules.steward.shape import Shape
from fallow.rules.steward.shapes.round_tasks import (
    RoundsState,
    finish_spec,
    own_part,
    round_spec,
    rounds_of,
    told,
    train_rounds,
    train_work,
    work_before,
)
from fallow.rules.steward.slots import add_slot, respec, retire, strike
from fallow.rules.steward.specs import part_named
from fallow.rules.steward.state import Job, Run, Slot, State, Step, Turn
from fallow.wire.local import JobSpec, RoundView, TrainJob, Work

MAX_ROUNDS, MAX_ROUNDS_SHOWN = 10_000, 4096


class RoundsShape(Shape):
    """Training."""

    name = "train"
    progress_text = ""

    def refuse(self, spec: JobSpec) -> str:
        work, kind = _train(spec.work), kind_named(spec.work.workload).rounds
        fits = kind is not None and 1 <= kind.count(work) <= MAX_ROUNDS
        return "" if fits else f"a training job has 1 to {MAX_ROUNDS} rounds"

    def inputs(self, work: Work) -> tuple[bytes, ...]:
        return _train(work).model, _train(work).data

    def volume(self, spec: JobSpec) -> market.Volume:
        work, kind = _train(spec.work), kind_named(spec.work.workload).rounds
        assert kind is not None, "the kind of a training has rounds"
        step, look = (kind.round_units(work, evaluate=evaluate) for evaluate in (False, True))
        count, finish = kind.count(work), kind.finish_units(work)
        units = count * (look + (spec.workers - 1) * step) + finish
        return market.Volume(count * spec.workers + 1, units, max(look, finish), forced=1)

    def start(self, turn: Turn, job: Job) -> None:
        work, kind = train_work(job), train_rounds(job)
        job.form = RoundsState(Log(job.spec.workers, max(1, kind.count(work)), turn.now_ms, kind.ahead(work)))
        job.moved = True

    def resume(self, turn: Turn, job: Job) -> None:
        if isinstance(job.form, RoundsState):  # not a job that was refused
            job.form.log.began_ms = turn.now_ms

    def advance(self, turn: Turn, job: Job) -> None:
        form = rounds_of(job)
        while job.moved or _late(turn, form.log):
            job.moved = False
            _roll_back(turn, job, form)
            if form.log.complete:
                _finish(job, form)
                return
            _drop_unfounded(turn, job, form)
            _open_rounds(job, form)
            _refresh(job, form)
            if not _close_round(turn, job, form):
                return
            job.moved = True

    def refused(self, turn: Turn, job: Job, slot: Slot, run: Run) -> str:
        """An update that another part of the training gave first is a copy: no two tasks have the same data. Where they
        have all the same (there is less text than shards), a second account gives it too; then whoever lies is found
        by a check of both."""
        update = part_named(run.output, "update") if run.output is not None else None
        if update is None or slot.of is not None:
            return ""
        key = rounds_of(job).updates.setdefault(update.blob, slot.key)
        if key == slot.key:
            return ""
        if len({other.account for other in slot.runs if other.output and update in other.output.parts}) < 2:
            return f"its update is a copy of what task {key} gave"
        for one in (slot, job.slots[key]):
            check_of(job).doubt(turn, job, one, f"Task {one.key}: another has the same update; both are checked.")
        return ""

    def arrived(self, turn: Turn, job: Job, blob: bytes) -> None:
        _spread(turn, job, blob)

    def complete(self, job: Job) -> bool:
        finish = rounds_of(job).finish
        return not job.moved and finish is not None and job.slots[finish].usable

    def outputs(self, job: Job) -> list[int | None]:
        return [job.form.finish] if isinstance(job.form, RoundsState) else []

    def progress(self, job: Job) -> tuple[int, int]:
        form = job.form
        return (form.log.current, form.log.rounds) if isinstance(form, RoundsState) else (0, 0)

    def rounds(self, job: Job) -> tuple[RoundView, ...]:
        return _views(job, job.form) if isinstance(job.form, RoundsState) else ()

    def moments(self, state: State, job: Job) -> Iterator[int]:
        log = rounds_of(job).log
        if not log.complete:
            yield log.began_ms + state.timing.round_within


def _train(work: Work) -> TrainJob:
    assert isinstance(work, TrainJob), "it is registered for trainings"
    return work


def _late(turn: Turn, log: Log) -> bool:
    return not log.complete and turn.now_ms >= log.began_ms + turn.state.timing.round_within


def _roll_back(turn: Turn, job: Job, form: RoundsState) -> None:
    """When a round that was closed holds an answer that was voided or outvoted (being checked is not enough),
    everything from it on is dropped. Claims of later rounds stay claims of honest work on what they were given, and
    are paid; nobody needs their answers."""
    log, answers = form.log, {place: job.slots[key].answer for place, key in form.slots.items()}
    number = log.first_false(answers)
    if number is None:
        return
    turn.note(job, "round", f"Round {number} held a false update; training goes back to it.")
    log.roll_back(number, turn.now_ms)
    for place, key in list(form.slots.items()):
        if place[0] > number:
            retire(turn, job, job.slots[key])
            del form.slots[place]
    for later in [r for r in form.closed if r >= number]:
        del form.closed[later]
    if form.finish is not None:
        finish, form.finish = job.slots[form.finish], None
        retire(turn, job, finish)


def _drop_unfounded(turn: Turn, job: Job, form: RoundsState) -> None:
    """Work ahead of the log stands on its shard's own claim in a round that is still open. Where that claim is gone, or
    another answer took its place, it is work on nothing, and is begun anew when there is something to build on."""
    log = form.log
    for number in log.open_rounds()[1:]:
        for shard in range(log.shards):
            key = form.slots.get((number, shard))
            if key is None:
                continue
            stood_on = tuple(part for part in job.slots[key].spec.inputs if part.name == "own")
            if stood_on != own_part(job, number, shard):
                retire(turn, job, job.slots[key])
                del form.slots[number, shard]


def _open_rounds(job: Job, form: RoundsState) -> None:
    """The current round has a slot for every shard; those ahead of it have one for every shard that has done its part
    of the round before. A shard goes where it was last, since its state is there."""
    log = form.log
    for number in log.open_rounds():
        for shard in range(log.shards):
            before = work_before(job, number, shard)
            if (number, shard) in form.slots or (number > log.current and before is None):
                continue
            forced = rounds.writes_checkpoint(number, shard)
            slot = add_slot(job, round_spec(job, number, shard), forced=forced)
            slot.prefer = before.seat if before is not None else None
            form.slots[number, shard] = slot.key


def _refresh(job: Job, form: RoundsState) -> None:
    """Slots that wait for a provider may have been made before a rollback, or before an input was lost."""
    log = form.log
    for number in log.open_rounds():
        for shard in range(log.shards):
            key = form.slots.get((number, shard))
            if key is None or job.slots[key].step is not Step.WAITING:
                continue
            slot, spec = job.slots[key], round_spec(job, number, shard)
            if (spec.inputs, spec.params) != (slot.spec.inputs, slot.spec.params):
                respec(job, slot, spec)


def _close_round(turn: Turn, job: Job, form: RoundsState) -> bool:
    """-> whether the current round was closed now."""
    log = form.log
    slots = {shard: job.slots[form.slots[log.current, shard]] for shard in range(log.shards)}
    done = {shard: slot for shard, slot in slots.items() if check_of(job).builds_on(job, slot)}
    entries = {shard: entry for shard, slot in done.items() if (entry := _entry(job, slot)) is not None}
    if _force_dissenters(turn, job, slots, entries):
        return False
    blocked = sum(
        1 for shard, slot in slots.items() if shard not in done and slot.step in (Step.CHECKING, Step.KEEPING)
    )
    elapsed = turn.now_ms - log.began_ms
    if not rounds.may_close(len(entries), blocked, log.shards, elapsed, turn.state.timing.round_within):
        return False
    for shard, slot in slots.items():
        if shard not in entries:
            turn.note(job, "round", f"Round {log.current} goes on without shard {shard}, which came too late.")
            for run in slot.running():
                strike(turn, job, job.seats[run.seat])
            retire(turn, job, slot)
            del form.slots[log.current, shard]
    _sign_off(turn, job, form, entries)
    return True


def _entry(job: Job, slot: Slot) -> RoundEntry | None:
    run = slot.chosen()
    if run is None or run.output is None:
        return None
    value, update = told(job, run), part_named(run.output, "update")
    return None if value is None or update is None else RoundEntry(run.answer, update, value.state, value.loss[:40])


def _force_dissenters(turn: Turn, job: Job, slots: dict[int, Slot], entries: dict[int, RoundEntry]) -> bool:
    """Workers that start from the same log must start from the same state. Who says otherwise is checked, once."""
    odd, number = (
        rounds.dissenters({shard: entry.state for shard, entry in entries.items()}),
        rounds_of(job).log.current,
    )
    forced = False
    for shard in odd:
        slot = slots[shard]
        text = f"Round {number}, shard {shard}: started from another state than the others; it is checked."
        forced = check_of(job).doubt(turn, job, slot, text) or forced
    return forced


def _sign_off(turn: Turn, job: Job, form: RoundsState, entries: dict[int, RoundEntry]) -> None:
    log, number = form.log, form.log.current
    first = entries.get(0)
    state, agreed = rounds.common_state(list(entries.values()))
    form.closed[number] = (state, agreed, first.loss if first else "")
    log.close(entries, turn.now_ms)
    slot = job.slots[form.slots[number, 0]] if (number, 0) in form.slots else None
    run = slot.chosen() if slot is not None else None
    if slot is not None and run is not None and run.output is not None and slot.step is Step.FINAL:
        point = part_named(run.output, "checkpoint")
        if point is not None:
            log.add_checkpoint(log.seen(number), point)
    loss = f", loss {first.loss}" if first and first.loss else ""
    text = f"Round {number + 1} of {log.rounds}: {len(entries)} updates{loss}."
    turn.note(job, "round", text, done=number + 1, total=log.rounds)


def _finish(job: Job, form: RoundsState) -> None:
    """The result is what everything was for: its claim is always checked where anybody can."""
    if form.finish is None:
        form.finish = add_slot(job, finish_spec(job), forced=True).key


def _spread(turn: Turn, job: Job, blob: bytes) -> None:
    """An update that just came in is what every other worker needs next: they fetch it while they compute, long before
    the round closes. One that proves false later was fetched in vain, and nothing else. Each goes over its maker's link
    once, however many workers there are."""
    for slot in map(job.slots.__getitem__, job.queue.keeping):
        run = slot.leading()
        part = part_named(run.output, "update") if run is not None and run.output is not None else None
        if run is None or part is None or part.blob != blob:
            continue
        for seat in job.usable:
            if seat.number != run.seat:
                turn.ask(Prefetch(seat.lease, seat.peer, part))
        return


def _views(job: Job, form: RoundsState) -> tuple[RoundView, ...]:
    """After the last round, the state and loss of the finished result as a round without updates."""
    views: list[RoundView] = []
    for number, entries in enumerate(form.log.closed):
        state, agreed, loss = form.closed.get(number, (b"", True, ""))
        sent = sum(entry.update.size_bytes for entry in entries.values())
        views.append(RoundView(number, len(entries), state, agreed, loss, sent))
    finish = job.slots[form.finish].chosen() if form.finish is not None else None
    value = told(job, finish) if finish is not None else None
    if value is not None:
        views.append(RoundView(form.log.rounds, 0, value.state, True, value.loss[:40], 0))
    return tuple(views[-MAX_ROUNDS_SHOWN:])
