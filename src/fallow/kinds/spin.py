"""`spin` burns a known amount of CPU and gives a result that anyone can check: BLAKE3 iterated N times, where the
parameters are N in decimal."""

from __future__ import annotations

from collections.abc import Mapping

from fallow.errors import fail
from fallow.kinds.kind import Kind
from fallow.kinds.lane import OneUnit
from fallow.units import GIB
from fallow.wire.tasks import TaskOutput, TaskSpec

MAX_SPINS = 10**12
SPINS_A_UNIT = 1_000_000


class Spin(Kind):
    """A unit is a million spins, about a second on one core."""

    name = "spin"
    depth = 4
    usual_ram_bytes = GIB
    usual_s = 900
    price_ucr = 1_000
    same_everywhere = True
    program = "fallow.workloads.echo:run_spin"
    lane = OneUnit("fallow.workloads.echo:spin_lane")

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        if not line.isascii() or not line.isdigit() or int(line) > MAX_SPINS:
            raise fail("E2001", f"spin takes whole numbers up to {MAX_SPINS}, not {line[:40]!r}.")
        return line.encode()

    def units(self, params: bytes) -> int:
        return max(1, spins(params) // SPINS_A_UNIT)

    def speed(self, flops: int) -> int:
        return 1_000

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        return True

    def shown(self, value: bytes) -> str:
        return value.hex()


def spins(params: bytes) -> int:
    """How many iterations the parameters ask for. Errors: E1707 when they are no number, or too many."""
    if not params.isdigit() or len(params) > 13 or int(params) > MAX_SPINS:
        raise fail("E1707", f"A spin takes a number up to {MAX_SPINS}.")
    return int(params)
