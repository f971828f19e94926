"""Five hundred worlds with faults and cheats. A failure names its seed and how to see it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fallow.sim.run import simulate

SEEDS, HALVES = 500, 2


@pytest.mark.slow
def test_nothing_goes_wrong_in_any_world() -> None:
    """On two processors."""
    share = SEEDS // HALVES
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "fallow.sim.run", "--seed", str(share * half), "--count", str(share)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(half)},
        )
        for half in range(HALVES)
    ]  # fmt: skip
    told = [run.communicate()[0] for run in runs]
    assert not any(run.returncode for run in runs), "\n\n".join(told)


def test_one_seed_is_one_story_in_any_process() -> None:
    """Hashes of text and bytes are salted anew in each process; nothing may hang on their order."""
    code = "from fallow.sim.run import simulate; print([simulate(s).trace for s in (5, 11, 40)])"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, check=True,
            text=True,
        ).stdout.strip()
        for salt in ("1", "2")
    }  # fmt: skip
    assert told == {str([simulate(seed).trace for seed in (5, 11, 40)])}


def test_another_seed_is_another_story() -> None:
    assert len({simulate(seed).trace for seed in range(8)}) == 8
