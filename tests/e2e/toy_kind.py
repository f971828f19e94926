"""A kind of work that is no part of Fallow, and its worker: `python tests/e2e/toy_kind.py --fd N`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from fallow.kinds.kind import Kind, text_of
from fallow.kinds.registry import KINDS
from fallow.units import MIB
from fallow.wire.tasks import TaskOutput, TaskSpec
from fallow.workloads.task import TaskResult, TaskRun


class Shout(Kind):
    """Gives text back in capitals; a unit is a letter."""

    name = "shout"
    unit = "letters"
    depth = 4
    usual_ram_bytes = 256 * MIB
    usual_s = 60
    price_ucr = 2_000
    same_everywhere = True
    program = f"{__name__}:run"

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        return line.encode()

    def units(self, params: bytes) -> int:
        return max(1, len(params))

    def speed(self, flops: int) -> int:
        return 1_000

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        return len(output.value) >= len(task.params)

    def shown(self, value: bytes) -> str:
        return text_of(value) + "!"


def run(work: TaskRun) -> TaskResult:
    return TaskResult(work.task.params.upper())


if __name__ == "__main__":
    from fallow.workloads.worker import main

    KINDS["shout"] = Shout()
    main(sys.argv[1:])
