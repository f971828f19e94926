"""When a node makes cgroups for its workers, by trees that look like the system's. What the kernel then does is tested
where there is one: tests/attacks/test_hostile_cgroup.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.adapters.runners import cgroup

Made = Callable[..., tuple[Path, Path]]


@pytest.fixture
def system(tmp_path: Path) -> Made:
    """-> the system's /proc, and the cgroup of this process."""

    def made(members: str = "", controllers: str = "cpu memory pids", name: str = "ours") -> tuple[Path, Path]:
        proc, tree = tmp_path / "proc", tmp_path / "cgroups"
        place = tree / "user.slice" / name
        place.mkdir(parents=True)
        (place / "cgroup.controllers").write_text(controllers)
        (place / "cgroup.procs").write_text(members or f"{os.getpid()}\n")
        (place / "cgroup.subtree_control").write_text("")
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "mountinfo").write_text(f"30 24 0:26 / {tree} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
        (proc / str(os.getpid())).mkdir()
        (proc / str(os.getpid()) / "cgroup").write_text(f"4:memory:/elsewhere\n0::/user.slice/{name}\n")
        return proc, place

    return made


def test_a_cgroup_that_is_ours_alone_is_used(system: Made) -> None:
    proc, place = system()
    assert cgroup.look(proc=proc) == (place, "")


def test_one_that_moved_aside_is_still_at_its_place(system: Made) -> None:
    proc, place = system(name=f"fallow-node-{os.getpid()}")
    assert cgroup.look(proc=proc) == (place.parent, "")


def test_others_are_never_moved(system: Made) -> None:
    proc, _ = system(members=f"{os.getpid()}\n{os.getppid()}\n")
    assert cgroup.look(proc=proc) == (None, "other programs are in its cgroup")


def test_limits_that_are_not_passed_on(system: Made) -> None:
    proc, _ = system(controllers="cpu pids")
    assert cgroup.look(proc=proc)[1].startswith("its cgroup has no limits of memory")


def test_version_1_alone(system: Made) -> None:
    proc, _ = system()
    (proc / "self" / "mountinfo").write_text("30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    assert cgroup.look(proc=proc) == (None, "this system has no cgroups of version 2")
    assert cgroup.look(proc=proc / "none") == (None, "this system has no cgroups")


def test_somebody_else_s(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, _ = system()
    monkeypatch.setattr(os, "access", lambda *_a, **_k: False)
    assert cgroup.look(proc=proc) == (None, "its cgroup is not its user's")


def test_without_a_place_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_prepared", lambda: None)
    assert cgroup.make(1 << 30, 8) is None


def test_a_worker_s_limits_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_prepared", lambda: tmp_path)
    made = cgroup.make(1 << 30, 8)
    assert made is not None
    (place,) = tmp_path.iterdir()
    said = {path.name: path.read_text() for path in place.iterdir()}
    assert said == {"pids.max": "8", "memory.max": str(1 << 30), "memory.swap.max": "0", "memory.oom.group": "1"}
    assert not made.starved()
    (place / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n")
    assert made.starved()
