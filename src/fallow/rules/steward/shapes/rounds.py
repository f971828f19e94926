"""Training rounds on slots: opens them, closes them when they may be, rolls the log back when an update proves
false."""

from __future__ import annotations

from fallow.rules import rounds
from fallow.rules.rounds import Entry, Log
from fallow.rules.steward.check import check_of
from fallow.rules.steward.slots import add_slot, respec, retire, strike
from fallow.rules.steward.specs import (
    finish_spec,
    own_part,
    part_named,
    round_spec,
    told,
    train_log,
    train_rounds,
    train_work,
    work_before,
)
from fallow.rules.steward.state import Job, Slot, Step, Turn


def start(turn: Turn, job: Job) -> None:
    """Give a new training job its empty log."""
    work, kind = train_work(job), train_rounds(job)
    job.log = Log(job.spec.workers, max(1, kind.count(work)), turn.now_ms, kind.ahead(work))
    job.log_dirty = True


def advance_log(turn: Turn, job: Job) -> None:
    """Bring the log as far as the claims allow. Called whenever a slot of it moved, and when time passed."""
    log = train_log(job)
    while job.log_dirty or _late(turn, job):
        job.log_dirty = False
        _roll_back(turn, job, log)
        if log.complete:
            _finish(job)
            return
        _drop_unfounded(turn, job, log)
        _open_rounds(job, log)
        _refresh(job, log)
        if not _close_round(turn, job, log):
            return
        job.log_dirty = True


def _late(turn: Turn, job: Job) -> bool:
    log = train_log(job)
    return not log.complete and turn.now_ms >= log.began_ms + turn.state.timing.round_within


def _roll_back(turn: Turn, job: Job, log: Log) -> None:
    """When a round that was closed holds an answer that was voided or outvoted (being checked is not enough),
    everything from it on is dropped. Claims of later rounds stay claims of honest work on what they were given, and
    are paid; nobody needs their answers."""
    answers = {place: job.slots[key].answer for place, key in job.round_slots.items()}
    number = log.first_false(answers)
    if number is None:
        return
    turn.note(job, "round", f"Round {number} held a false update; training goes back to it.")
    log.roll_back(number, turn.now_ms)
    for place, key in list(job.round_slots.items()):
        if place[0] > number:
            retire(turn, job, job.slots[key])
            del job.round_slots[place]
    for later in [r for r in job.round_state if r >= number]:
        del job.round_state[later]
    if job.finish_slot >= 0:
        finish = job.slots[job.finish_slot]
        job.finish_slot = -1
        retire(turn, job, finish)


def _drop_unfounded(turn: Turn, job: Job, log: Log) -> None:
    """Work ahead of the log stands on its shard's own claim in a round that is still open. Where that claim is gone, or
    another answer took its place, it is work on nothing, and is begun anew when there is something to build on."""
    for number in log.open_rounds()[1:]:
        for shard in range(log.shards):
            key = job.round_slots.get((number, shard))
            if key is None:
                continue
            stood_on = tuple(part for part in job.slots[key].spec.inputs if part.name == "own")
            if stood_on != own_part(job, number, shard):
                retire(turn, job, job.slots[key])
                del job.round_slots[number, shard]


def _open_rounds(job: Job, log: Log) -> None:
    """The current round has a slot for every shard; those ahead of it have one for every shard that has done its part
    of the round before. A shard goes where it was last, since its state is there."""
    for number in log.open_rounds():
        for shard in range(log.shards):
            before = work_before(job, number, shard)
            if (number, shard) in job.round_slots or (number > log.current and before is None):
                continue
            forced = rounds.writes_checkpoint(number, shard)
            slot = add_slot(job, round_spec(job, number, shard), number=number, shard=shard, forced=forced)
            slot.prefer = before.seat if before is not None else -1
            job.round_slots[number, shard] = slot.key


def _refresh(job: Job, log: Log) -> None:
    """Slots that wait for a provider may have been made before a rollback, or before an input was lost."""
    for number in log.open_rounds():
        for shard in range(log.shards):
            key = job.round_slots.get((number, shard))
            if key is None or job.slots[key].step is not Step.WAITING:
                continue
            slot, spec = job.slots[key], round_spec(job, number, shard)
            if (spec.inputs, spec.params) != (slot.spec.inputs, slot.spec.params):
                respec(job, slot, spec)


def _close_round(turn: Turn, job: Job, log: Log) -> bool:
    """-> whether the current round was closed now."""
    slots = {shard: job.slots[job.round_slots[log.current, shard]] for shard in range(log.shards)}
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
            del job.round_slots[log.current, shard]
    _sign_off(turn, job, log, entries)
    return True


def _entry(job: Job, slot: Slot) -> Entry | None:
    run = slot.chosen()
    if run is None or run.output is None:
        return None
    value, update = told(job, run), part_named(run.output, "update")
    return None if value is None or update is None else Entry(run.answer, update, value.state, value.loss[:40])


def _force_dissenters(turn: Turn, job: Job, slots: dict[int, Slot], entries: dict[int, Entry]) -> bool:
    """Workers that start from the same log must start from the same state. Who says otherwise is checked, once."""
    odd = rounds.dissenters({shard: entry.state for shard, entry in entries.items()})
    forced = False
    for shard in odd:
        slot = slots[shard]
        text = f"Round {slot.round}, shard {shard}: started from another state than the others; it is checked."
        forced = check_of(job).doubt(turn, job, slot, text) or forced
    return forced


def _sign_off(turn: Turn, job: Job, log: Log, entries: dict[int, Entry]) -> None:
    number = log.current
    first = entries.get(0)
    state, agreed = rounds.common_state(list(entries.values()))
    job.round_state[number] = (state, agreed, first.loss if first else "")
    log.close(entries, turn.now_ms)
    slot = job.slots[job.round_slots[number, 0]] if (number, 0) in job.round_slots else None
    run = slot.chosen() if slot is not None else None
    if slot is not None and run is not None and run.output is not None and slot.step is Step.FINAL:
        point = part_named(run.output, "checkpoint")
        if point is not None:
            log.add_checkpoint(log.seen(number), point)
    loss = f", loss {first.loss}" if first and first.loss else ""
    text = f"Round {number + 1} of {log.rounds}: {len(entries)} updates{loss}."
    turn.note(job, "round", text, done=number + 1, total=log.rounds)


def _finish(job: Job) -> None:
    """The result is what everything was for: its claim is always checked where anybody can."""
    if job.finish_slot < 0:
        slot = add_slot(job, finish_spec(job), forced=True)
        job.finish_slot = slot.key
