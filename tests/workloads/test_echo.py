from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from fallow.errors import FallowError
from fallow.wire.tasks import TaskSpec
from fallow.workloads.echo import SPINS_A_STEP, run_echo, run_spin, spins
from fallow.workloads.task import TaskRun


def work(params: bytes, seen: list[int], stop_at: int = -1) -> TaskRun:
    def progress(done: int, total: int, note: str) -> None:
        seen.append(done)
        if done == stop_at:
            raise FallowError("E1402", "cancelled")

    return TaskRun(TaskSpec("spin", params, (), 5, 1, 1, 0), {}, Path("/none"), 1, progress, lambda _: None)


def test_echo() -> None:
    assert run_echo(work(b"hello", [])).value == b"hello"


def test_spin_is_blake3_again_and_again() -> None:
    state = blake3((5).to_bytes(8, "big")).digest()
    for _ in range(3):
        state = blake3(state).digest()
    assert run_spin(work(b"3", [])).value == state
    assert run_spin(work(b"0", [])).value == blake3((5).to_bytes(8, "big")).digest()


def test_spin_is_heard_at_every_step_and_can_be_stopped() -> None:
    seen: list[int] = []
    run_spin(work(str(2 * SPINS_A_STEP + 1).encode(), seen))
    assert seen == [SPINS_A_STEP, 2 * SPINS_A_STEP, 2 * SPINS_A_STEP + 1]
    with pytest.raises(FallowError):
        run_spin(work(b"999999999999", [], stop_at=SPINS_A_STEP))


@pytest.mark.parametrize("params", [b"", b"-1", b"1e9", b" 1", b"9" * 13, b"9" * 4000, "٣".encode()])
def test_what_is_no_number_of_spins(params: bytes) -> None:
    with pytest.raises(FallowError) as caught:
        spins(params)
    assert caught.value.code == "E1707"
