"""`echo` gives its parameters back: what is left to measure is Fallow itself."""

from __future__ import annotations

from collections.abc import Mapping

from fallow.kinds.kind import Kind, text_of
from fallow.kinds.lane import OneUnit
from fallow.units import MIB
from fallow.wire.tasks import TaskOutput, TaskSpec


class Echo(Kind):
    """One unit; the value is the parameters."""

    name = "echo"
    depth = 4
    usual_ram_bytes = 256 * MIB
    usual_s = 60
    price_ucr = 1_000
    same_everywhere = True
    program = "fallow.workloads.echo:run_echo"
    lane = OneUnit("fallow.workloads.echo:echo_lane")

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        return line.encode()

    def units(self, params: bytes) -> int:
        return 1

    def speed(self, flops: int) -> int:
        return 5_000

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        return True  # what is no echo is found by checks, as any wrong answer

    def shown(self, value: bytes) -> str:
        return text_of(value)
