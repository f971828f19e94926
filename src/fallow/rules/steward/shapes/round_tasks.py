"""What a training remembers of its rounds, and the tasks that follow from it: those of rounds and the finishing one."""

from __future__ import annotations

import msgspec

from fallow.kinds.registry import kind_named
from fallow.kinds.rounds import Rounds, StateReport
from fallow.rules import rounds
from fallow.rules.steward.specs import part_named, task_spec
from fallow.rules.steward.state import Job, Run, ShapeState
from fallow.wire.local import TrainJob
from fallow.wire.tasks import Part, TaskSpec


def round_spec(job: Job, number: int, shard: int) -> TaskSpec:
    """`shard`'s work in an open round. It carries on from the optimiser's state of the round before where the provider
    that holds it is still there; else it starts without."""
    work, log = train_work(job), train_log(job)
    kind, place = train_rounds(job), rounds.place(log, number, shard)
    inputs = (*kind.inputs(work), *log.inputs(number), *own_part(job, number, shard), *_carry(job, number, shard))
    units = kind.round_units(work, evaluate=place.evaluate)
    return task_spec(work, kind.round(work, place), inputs, seed=shard, units=units)


def finish_spec(job: Job) -> TaskSpec:
    """The task that makes the result of a complete log."""
    work, log = train_work(job), train_log(job)
    kind = train_rounds(job)
    params, inputs = kind.finish(work, log.manifests(log.rounds)), (*kind.inputs(work), *log.inputs(log.rounds))
    return task_spec(work, params, inputs, seed=0, units=kind.finish_units(work))


def train_work(job: Job) -> TrainJob:
    """The work of a training job."""
    assert isinstance(job.spec.work, TrainJob), "only training jobs have rounds"
    return job.spec.work


class RoundsState(ShapeState, msgspec.Struct, array_like=True, tag="rounds"):
    """What a training remembers beside its `log`: `slots` maps (round, shard) to the key of the slot for it, `finish`
    is that of the finishing task, and `closed` says of each closed round what its workers started from: the state,
    whether all agreed on it, and the loss. `updates` maps the blob of an update to the slot that gave it first."""

    log: rounds.Log
    slots: dict[tuple[int, int], int] = {}
    finish: int | None = None
    closed: dict[int, tuple[bytes, bool, str]] = {}
    updates: dict[bytes, int] = {}


def rounds_of(job: Job) -> RoundsState:
    """The rounds of a training job."""
    assert isinstance(job.form, RoundsState), "a training job has its rounds from its first moment"
    return job.form


def train_log(job: Job) -> rounds.Log:
    """The log of a training job."""
    return rounds_of(job).log


def train_rounds(job: Job) -> Rounds:
    """What the job's kind says of rounds."""
    found = kind_named(job.kind).rounds
    assert found is not None, "only jobs of a kind with rounds have a log"
    return found


def work_before(job: Job, number: int, shard: int) -> Run | None:
    """What the shard did in the round before `number`, as far as it is known now: it may not be checked yet."""
    key = rounds_of(job).slots.get((number - 1, shard))
    return job.slots[key].leading() if key is not None else None


def own_part(job: Job, number: int, shard: int) -> tuple[Part, ...]:
    """The shard's own update of the round before, where the manifests that `number` starts from end before it."""
    run = work_before(job, number, shard) if train_log(job).seen(number) < number else None
    found = part_named(run.output, "update") if run is not None and run.output is not None else None
    return () if found is None else (Part("own", found.blob, found.size_bytes),)


def _carry(job: Job, number: int, shard: int) -> tuple[Part, ...]:
    run = work_before(job, number, shard)
    if run is None or run.output is None:
        return ()
    found = part_named(run.output, "carry")
    if found is None or found.blob in job.blobs.missing:
        return ()
    return (found,) if job.blobs.kept.get(found.blob) or job.seats[run.seat].usable else ()


def told(job: Job, run: Run) -> StateReport | None:
    """What a claim of a round or of the finish says; None when a provider wrote something else there."""
    return train_rounds(job).told(run.output) if run.output is not None else None
