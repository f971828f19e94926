"""What a program on the leash may and may not do."""

from __future__ import annotations

import os
import subprocess
import sys

from fallow.adapters import leash
from fallow.units import GIB

TELL = "import os, resource; print(os.nice(0), *resource.getrlimit(resource.RLIMIT_DATA), *resource.getrlimit(4))"


def run(parent: int, nice: int, data_bytes: int, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", leash.__file__, str(parent), str(nice), str(data_bytes)]
    return subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )


def test_gives_way_and_is_bounded() -> None:
    mine = os.nice(0)
    told = run(os.getpid(), 5, 2 * GIB, TELL).stdout.split()
    assert told == [str(min(mine + 5, 19)), str(2 * GIB), str(2 * GIB), "0", "0"]


def test_cannot_take_more_than_its_bound() -> None:
    done = run(os.getpid(), 0, GIB, f"bytearray({2 * GIB})")
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_does_not_start_when_the_parent_is_gone() -> None:
    done = run(1 << 30, 0, 0, "print('started')")
    assert (done.returncode, done.stdout) == (1, "")


def test_hands_on_arguments_and_status() -> None:
    assert run(os.getpid(), 0, 0, "raise SystemExit(7)").returncode == 7
