"""Tasks as providers get them, and what is read of their outputs."""

from __future__ import annotations

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
    """Whether a claim's output has what its kind must have."""
    return run.output is not None and kind_named(job.kind).well_formed(slot.spec, run.output)
