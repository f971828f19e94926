"""Tasks as providers get them, and what is read of their outputs."""

from __future__ import annotations

from fallow.kinds.chain import is_state
from fallow.kinds.registry import kind_named
from fallow.rules.steward.state import Job, Run, Slot
from fallow.wire.local import Work
from fallow.wire.tasks import Part, TaskOutput, TaskSpec


def task_spec(work: Work, params: bytes, inputs: tuple[Part, ...] = (), *, seed: int, units: int) -> TaskSpec:
    """A task of the work's kind. Equal ones with different seeds are different tasks."""
    kind = kind_named(work.workload)
    return TaskSpec(kind.name, params, inputs, seed, units, kind.timeout_s(work, units), kind.ram_bytes(work))


def part_named(output: TaskOutput, name: str) -> Part | None:
    """The output's part of that name."""
    return next((part for part in output.parts if part.name == name), None)


def well_formed(job: Job, slot: Slot, run: Run) -> bool:
    """Whether a claim's output has what its kind must have, and is no larger than it may be: it is to lie on our disk.
    The states on the way do not."""
    if run.output is None:
        return False
    kind = kind_named(job.kind)
    size_bytes = sum(part.size_bytes for part in run.output.parts if not is_state(part.name))
    return size_bytes <= kind.output_bytes(job.spec.work) and kind.well_formed(slot.spec, run.output)
