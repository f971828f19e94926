"""What a run of a WebAssembly program is asked and what it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.units import GIB, MIB
from fallow.wire.documents import U64
from fallow.wire.tasks import MAX_PARAMS_BYTES, Name, Part

ENGINE = "wasmtime 50.0.1"
"""Whose meter and whose traps are meant. Another version may count otherwise, so it is another engine."""
MODULE, INPUTS, OUTPUTS = "module", "in", "out"
STDOUT, STDERR = "stdout", "stderr"

FUEL_A_UNIT = 1_000_000
MAX_UNITS = 10_000_000
"""10^13 fuel: hours on any machine."""
MAX_MEMORY_BYTES = 4 * GIB
MAX_OUTPUT_BYTES = GIB
LEAST_MEMORY_BYTES = MIB
INLINE_BYTES = 64 << 10
"""What was printed is part of the value up to this, and a file beyond it."""
MAX_FILES = 4_000
"""That a run writes; folders count."""
MAX_INPUTS = 1_000

Argument = Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
RunName = Annotated[str, msgspec.Meta(max_length=120)]


class RunLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a run may use, the same on every machine: the most units, its memory, and what it may print and write in
    all."""

    units: Annotated[int, msgspec.Meta(ge=1, le=MAX_UNITS)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=LEAST_MEMORY_BYTES, le=MAX_MEMORY_BYTES)]
    output_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_OUTPUT_BYTES)]


class WasmTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One run. `files` are inputs of this task alone, each named "in/..." as the program sees it; `stdin` names the one
    that is standard input, "" for an empty one. `name` is what its results are called."""

    engine: Name
    limits: RunLimits
    name: RunName = ""
    args: Annotated[tuple[Argument, ...], msgspec.Meta(max_length=4096)] = ()
    environment: Annotated[tuple[tuple[Argument, Argument], ...], msgspec.Meta(max_length=1024)] = ()
    files: Annotated[tuple[Part, ...], msgspec.Meta(max_length=MAX_INPUTS)] = ()
    stdin: RunName = ""


class WasmValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """How a run ended. `status` is what the program exited with; `trap` says why it could not go on, None where it
    ended by itself. `fuel` is what it costs: all that it used, or all that it was given after a trap that
    the meter does not see coming. What it printed is here, or, when it is more than INLINE_BYTES, in a part of that
    name."""

    name: RunName
    status: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
    trap: Name | None
    fuel: U64
    stdout: Annotated[bytes, msgspec.Meta(max_length=INLINE_BYTES)] = b""
    stderr: Annotated[bytes, msgspec.Meta(max_length=INLINE_BYTES)] = b""


def units_of(fuel: int) -> int:
    """What so much fuel is metered at; something is always paid for a run's own start."""
    return max(1, -(-fuel // FUEL_A_UNIT))
