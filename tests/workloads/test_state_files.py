"""States on their way to disk: what is written is what they were, and a failing disk is heard of."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from fallow.numerics import layout
from fallow.units import MIB
from fallow.wire.blob_id import blob_id_of
from fallow.workloads import state_files
from fallow.workloads.state_files import StateFiles, identity

SIZES = [0, 1, 1_000, MIB // 4, MIB // 4 + 1, 700_001]
"""Numbers of fp32: files below and above a block, a chunk, and what is written past the page cache."""


def state(size: int, seed: int = 0) -> tuple[layout.Layout, dict[str, layout.Array]]:
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    tensors: dict[str, layout.Array] = {"a": values[: size // 3], "b": values[size // 3 :]}
    return layout.layout({name: ("F32", (value.size,)) for name, value in tensors.items()}, "test 1"), tensors


def plainly(folder: Path, plan: layout.Layout, tensors: dict[str, layout.Array]) -> bytes:
    layout.write(folder / "plain", plan, tensors)
    return (folder / "plain").read_bytes()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [0, 64 * MIB], ids=["at once", "behind"])
def test_a_state_is_written_as_it_was(tmp_path: Path, size: int, most: int) -> None:
    plan, tensors = state(size)
    wanted = plainly(tmp_path, plan, tensors)
    with StateFiles(most) as files:
        files.write(tmp_path / "deep" / "state", plan, tensors)
        for value in tensors.values():
            value[...] = 7  # the next step
    assert (tmp_path / "deep" / "state").read_bytes() == wanted


def test_a_file_system_that_knows_no_direct_writes_gets_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, tensors = state(700_001)
    monkeypatch.setattr(state_files, "DIRECT", os.O_DIRECTORY | os.O_DIRECT)  # the kernel answers EINVAL to both
    with StateFiles() as files:
        files.write(tmp_path / "state", plan, tensors)
    assert (tmp_path / "state").read_bytes() == plainly(tmp_path, plan, tensors)


def test_what_waits_is_bounded_and_all_of_it_comes(tmp_path: Path) -> None:
    states = [state(size, seed) for seed, size in enumerate([400_000, 10, 300_000, 400_000] * 6)]
    with StateFiles(3 * MIB) as files:
        for number, (plan, tensors) in enumerate(states):
            files.write(tmp_path / str(number), plan, tensors)
            held = sum(len(buffer) for _, buffer in files._waiting)
            spare = sum(length * len(buffers) for length, buffers in files._spare.items())
            assert held + spare <= 2 * 3 * MIB
            assert held <= 3 * MIB
    for number, (plan, tensors) in enumerate(states):
        assert (tmp_path / str(number)).read_bytes() == plainly(tmp_path, plan, tensors)


@pytest.fixture
def small_files() -> object:
    """No file may grow beyond 1 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    yield None
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_an_error_of_the_disk_is_never_lost(tmp_path: Path) -> None:
    large, small = state(700_001), state(10)
    with (
        pytest.raises(OSError, match="too large") as caught,
        StateFiles() as files,
    ):  # at the end, when nothing follows it
        files.write(tmp_path / "large", *large)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(OSError, match="too large") as caught, StateFiles(4 * MIB) as files:  # or before a later one
        for number in range(1_000):
            files.write(tmp_path / f"{number}", *(small if number else large))
        raise AssertionError("it was heard of before")
    assert caught.value.errno == errno.EFBIG


def test_a_round_that_fails_does_not_wait_for_its_states(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), StateFiles() as files:
        files.write(tmp_path / "state", *state(700_001))
        raise ZeroDivisionError
    assert files._waiting == type(files._waiting)()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_identity_is_that_of_the_file(tmp_path: Path, size: int, threads: int) -> None:
    plan, tensors = state(size)
    assert identity(plan, tensors, threads) == blob_id_of(plainly(tmp_path, plan, tensors))
