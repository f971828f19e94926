"""Independent tasks: all begin at once, and the job is done when each has an answer."""

from __future__ import annotations

from fallow.rules import market
from fallow.rules.steward.shape import Shape
from fallow.rules.steward.slots import add_slot
from fallow.rules.steward.specs import batch_spec
from fallow.rules.steward.state import Job, Turn
from fallow.wire.local import BatchJob, JobSpec, Work


class Tasks(Shape):
    """A batch."""

    name = "batch"

    def refuse(self, spec: JobSpec) -> str:
        return "" if _batch(spec.work).params else "a batch without tasks"

    def params(self, work: Work) -> tuple[bytes, ...]:
        return _batch(work).params

    def inputs(self, work: Work) -> list[bytes]:
        return [part.blob for part in _batch(work).inputs]

    def volume(self, spec: JobSpec) -> market.Volume:
        work = _batch(spec.work)
        return market.Volume(len(work.params), len(work.params) * work.units_each, work.units_each)

    def start(self, turn: Turn, job: Job) -> None:
        work = _batch(job.spec.work)
        for index in range(len(work.params)):
            add_slot(job, batch_spec(work, index))


def _batch(work: Work) -> BatchJob:
    assert isinstance(work, BatchJob), "it is registered for batches"
    return work
