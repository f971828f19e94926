"""What a job's slots ask for: the task specs of batches, rounds and finishing tasks, made from the job alone."""

from __future__ import annotations

from typing import Any

import msgspec

from fallow.errors import FallowError
from fallow.kinds.train.tasks import TrainValue
from fallow.kinds.train.trace import read_trace
from fallow.rules import market, rounds, sizes
from fallow.rules.steward.state import Job, Run, Slot
from fallow.wire import codec
from fallow.wire.local import BatchJob, TrainJob
from fallow.wire.tasks import Part, TaskOutput, TaskSpec


def batch_spec(work: BatchJob, index: int) -> TaskSpec:
    """Task `index` of a batch. The seed is the index: equal params at two places are two tasks."""
    return _spec(work, work.workload, work.params[index], work.inputs, seed=index, units=work.units_each)


def round_spec(job: Job, number: int, shard: int) -> TaskSpec:
    """`shard`'s work in an open round. It carries on from the optimiser's state of the round before where the provider
    that holds it is still there; else it starts without."""
    work, log = train_work(job), train_log(job)
    params = rounds.round_params(log, work.recipe, number, shard)
    inputs = (*_trees(work), *log.inputs(number), *own_part(job, number, shard), *_carry(job, number, shard))
    units = market.train_units(work.recipe, evaluate=params.evaluate)
    return _spec(work, "train", codec.encode(params), inputs, seed=shard, units=units)


def finish_spec(job: Job) -> TaskSpec:
    """The task that makes the result of a complete log."""
    work, log = train_work(job), train_log(job)
    params = codec.encode(rounds.finish_params(log, work.recipe))
    inputs = (*_trees(work), *log.inputs(log.rounds))
    return _spec(work, "train", params, inputs, seed=0, units=market.finish_units(work.recipe))


def train_work(job: Job) -> TrainJob:
    """The work of a training job."""
    assert isinstance(job.spec.work, TrainJob), "only training jobs have rounds"
    return job.spec.work


def train_log(job: Job) -> rounds.Log:
    """The log of a training job."""
    assert job.log is not None, "a training job has a log from its first moment"
    return job.log


def _trees(work: TrainJob) -> tuple[Part, Part]:
    return Part("model", work.model, 0), Part("data", work.data, work.data_bytes)


def work_before(job: Job, number: int, shard: int) -> Run | None:
    """What the shard did in the round before `number`, as far as it is known now: it may not be checked yet."""
    key = job.round_slots.get((number - 1, shard))
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
    if found is None or found.blob in job.missing:
        return ()
    return (found,) if job.kept.get(found.blob) or job.seats[run.seat].usable else ()


def _spec(
    work: TrainJob | BatchJob, kind: str, params: bytes, inputs: tuple[Part, ...], *, seed: int, units: int
) -> TaskSpec:
    timeout_s, ram_bytes = sizes.timeout_s(work, kind, units), sizes.ram_bytes(work, kind)
    return TaskSpec(kind, params, inputs, seed, units, timeout_s, ram_bytes)


def part_named(output: TaskOutput, name: str) -> Part | None:
    """The output's part of that name."""
    return next((part for part in output.parts if part.name == name), None)


def train_value(run: Run) -> TrainValue | None:
    """The value of a train claim; None when a provider wrote something else there."""
    if run.output is None:
        return None
    try:
        return codec.decode(TrainValue, run.output.value)
    except FallowError:
        return None


def well_formed(job: Job, slot: Slot, run: Run) -> bool:
    """Whether a claim's output has what its kind must have. A round without an update is no contribution, whoever
    agrees."""
    if job.log is None or run.output is None or slot.of >= 0:
        return run.output is not None
    value = train_value(run)
    if slot.round < 0:
        return value is not None or bool(run.output.parts)
    params: Any = msgspec.msgpack.decode(slot.spec.params)
    wants_checkpoint = bool(params[-1])
    has = {part.name for part in run.output.parts}
    whole = value is not None and "update" in has and (not wants_checkpoint or "checkpoint" in has)
    return whole and (not market.in_links(job.spec) or read_trace(train_work(job).recipe, run.output) is not None)
