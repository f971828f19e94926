"""A worker that wants more than was leased."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fallow.units import MIB
from fallow.workloads.memory import memory_is_out

HOLD = """
import sys
from fallow.workloads.memory import bound_memory
bound_memory(int(sys.argv[1]))
try:
    held = bytearray(int(sys.argv[2]))
except MemoryError:
    print("refused")
else:
    print("held")
"""


@pytest.mark.parametrize(
    ("leased", "wanted", "said"),
    [(300 * MIB, 200 * MIB, "held"), (300 * MIB, 900 * MIB, "refused"), (0, 900 * MIB, "held")],
)
def test_memory_within_the_lease_and_beyond(leased: int, wanted: int, said: str) -> None:
    command = [sys.executable, "-c", HOLD, str(leased), str(wanted)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip() == said


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_is_out(error: Exception, out: bool) -> None:
    assert memory_is_out(error) is out
