"""Independent tasks: all begin at once, and the job is done when each has an answer."""

from __future__ import annotations

from fallow.kinds.registry import kind_named
from fallow.rules import market
from fallow.rules.steward.shape import Shape
from fallow.rules.steward.slots import add_slot
from fallow.rules.steward.specs import task_spec
from fallow.rules.steward.state import Job, Turn
from fallow.wire.local import BatchJob, JobSpec, Work
from fallow.wire.tasks import Part, TaskSpec


class TasksShape(Shape):
    """A batch."""

    name = "batch"

    def refuse(self, spec: JobSpec) -> str:
        return "" if _batch(spec.work).params else "a batch without tasks"

    def of_inputs(self, kind: str, params: tuple[bytes, ...], inputs: tuple[Part, ...], units_each: int) -> Work:
        return BatchJob(kind, params, inputs, units_each)

    def params(self, work: Work) -> tuple[bytes, ...]:
        return _batch(work).params

    def inputs(self, work: Work) -> list[bytes]:
        work, kind = _batch(work), kind_named(work.workload)
        return [part.blob for parts in (work.inputs, *map(kind.parts, work.params)) for part in parts]

    def volume(self, spec: JobSpec) -> market.Volume:
        work = _batch(spec.work)
        return market.Volume(len(work.params), len(work.params) * work.units_each, work.units_each)

    def start(self, turn: Turn, job: Job) -> None:
        work = _batch(job.spec.work)
        for index in range(len(work.params)):
            add_slot(job, task_of(work, index))


def task_of(work: BatchJob, index: int) -> TaskSpec:
    """Task `index` of a batch. The seed is the index: equal params at two places are two tasks."""
    params = work.params[index]
    inputs = (*work.inputs, *kind_named(work.workload).parts(params))
    return task_spec(work, params, inputs, seed=index, units=work.units_each)


def _batch(work: Work) -> BatchJob:
    assert isinstance(work, BatchJob), "it is registered for batches"
    return work
