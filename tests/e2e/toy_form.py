"""A form of jobs that is no part of Fallow: pairs of tasks, the second of which is given what the first answered."""

from __future__ import annotations

import msgspec

from fallow.kinds.registry import kind_named
from fallow.rules import market
from fallow.rules.steward.shape import Shape
from fallow.rules.steward.slots import add_slot, retire
from fallow.rules.steward.specs import task_spec
from fallow.rules.steward.state import Job, ShapeState, Turn
from fallow.wire.documents import U64, Label
from fallow.wire.local import JobSpec, Work
from fallow.wire.tasks import Part


class PairJob(Work, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="pair"):
    """Each of `first` is a task of the workload; what it answers is the next one."""

    workload: Label  # pyright: ignore[reportIncompatibleMethodOverride]
    first: tuple[bytes, ...]
    units_each: U64


class Pairs(ShapeState, msgspec.Struct, array_like=True, tag="pairs"):
    """`second` maps the key of a pair's first slot to that of its second and to the answer that it was made from."""

    second: dict[int, tuple[int, bytes]] = {}


class Pair(Shape):
    """Pairs."""

    name = "pair"
    progress_text = "Pairs are done."

    def of_inputs(self, kind: str, params: tuple[bytes, ...], inputs: tuple[Part, ...], units_each: int) -> Work:
        return PairJob(kind, params, units_each)

    def refuse(self, spec: JobSpec) -> str:
        return "" if _pair(spec.work).first else "a job without pairs"

    def params(self, work: Work) -> tuple[bytes, ...]:
        return _pair(work).first

    def inputs(self, work: Work) -> list[bytes]:
        return []

    def volume(self, spec: JobSpec) -> market.Volume:
        work = _pair(spec.work)
        return market.Volume(2 * len(work.first), 2 * len(work.first) * work.units_each, work.units_each)

    def start(self, turn: Turn, job: Job) -> None:
        work, job.form = _pair(job.spec.work), Pairs()
        for seed, params in enumerate(work.first):
            add_slot(job, task_spec(work, params, seed=seed, units=work.units_each))

    def advance(self, turn: Turn, job: Job) -> None:
        work, form = _pair(job.spec.work), _pairs(job)
        job.moved = False
        for slot in job.slots[: len(work.first)]:
            before, run = form.second.get(slot.key), slot.chosen() if slot.usable else None
            if before is not None and (run is None or run.answer != before[1]):
                retire(turn, job, job.slots[before[0]])  # what it was made from proved false
                del form.second[slot.key]
            if run is not None and run.output is not None and slot.key not in form.second:
                units = kind_named(work.workload).units(run.output.value)
                second = add_slot(job, task_spec(work, run.output.value, seed=slot.spec.seed, units=units))
                form.second[slot.key] = second.key, run.answer

    def complete(self, job: Job) -> bool:
        return not job.moved and job.queue.unusable == 0 and len(_pairs(job).second) == len(_pair(job.spec.work).first)

    def outputs(self, job: Job) -> list[int | None]:
        found = job.form.second if isinstance(job.form, Pairs) else {}
        seconds = (found.get(key) for key in range(len(_pair(job.spec.work).first)))
        return [None if second is None else second[0] for second in seconds]

    def progress(self, job: Job) -> tuple[int, int]:
        keys = [key for key in self.outputs(job) if key is not None]
        return sum(job.slots[key].usable for key in keys), len(_pair(job.spec.work).first)


def _pair(work: Work) -> PairJob:
    assert isinstance(work, PairJob), "it is registered for pairs"
    return work


def _pairs(job: Job) -> Pairs:
    assert isinstance(job.form, Pairs), "set when the job began"
    return job.form
