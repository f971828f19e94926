"""A cgroup for each worker, where the system lets the node make some: the kernel then counts all that a worker makes it
hold, swaps none of it, and ends the worker alone when that is too much. Files that can be read again do not count.

Version 2 only, in a part of the tree that is the node's own, as systemd gives it with `Delegate=yes`. Where
there is none, workers keep the limits that processes have, and the look at their memory four times a second.

Facts from the kernel's documentation (admin-guide/cgroup-v2) and systemd's (CGROUP_DELEGATION).
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil

_PROC = Path("/proc")
_NODE, _WORKER = "fallow-node-", "fallow-worker-"
_MEMBERS, _PASSED_ON = "cgroup.procs", "cgroup.subtree_control"
_NEEDED = ("memory", "pids")
_REMOVE_TRIES, _REMOVE_PAUSE_S = 40, 0.025
_numbers = count(1)


class Cgroup:
    """Of one worker, and all that it starts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def members(self) -> str:
        """The file where a process writes 0 to be in it."""
        return str(self._path / _MEMBERS)

    def kill(self) -> None:
        """End every process in it (since kernel 5.14)."""
        _write(self._path / "cgroup.kill", "1")

    def starved(self) -> bool:
        """Whether the kernel ended one of its processes for memory."""
        with suppress(OSError):
            events = dict(line.split() for line in (self._path / "memory.events").read_text("ascii").splitlines())
            return int(events.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        """Once its processes are gone, which a killed one is in no time. Blocks, a second at most."""
        for _ in range(_REMOVE_TRIES):
            with suppress(OSError):
                self._path.rmdir()
            if not self._path.exists():
                return
            time.sleep(_REMOVE_PAUSE_S)  # noqa: TID251 - called in a thread


def make(ram_bytes: int, processes: int) -> Cgroup | None:
    """For a worker that may hold `ram_bytes` (0: no bound) and have so many processes and threads; None where there
    can be none. Takes a millisecond, and some more the first time."""
    place = _prepared()
    if place is None:
        return None
    path = place / f"{_WORKER}{os.getpid()}-{next(_numbers)}"
    try:
        path.mkdir()
        (path / "pids.max").write_text(str(processes), "ascii")
        if ram_bytes:
            (path / "memory.max").write_text(str(ram_bytes), "ascii")
    except OSError:
        with suppress(OSError):
            path.rmdir()
        return None
    _write(path / "memory.swap.max", "0")
    _write(path / "memory.oom.group", "1")
    return Cgroup(path)


@functools.cache
def _prepared() -> Path | None:
    """Where workers' cgroups can be made from now on; a cgroup with others in it may hold no process itself, so this
    one moves aside, with what it started."""
    place, _ = look()
    if place is None:
        return None
    _sweep(place)
    try:
        if members := (place / _MEMBERS).read_text("ascii").split():
            aside = place / f"{_NODE}{os.getpid()}"
            aside.mkdir(exist_ok=True)
            for pid in members:
                _write(aside / _MEMBERS, pid)
        (place / _PASSED_ON).write_text(" ".join(f"+{name}" for name in _NEEDED), "ascii")
    except OSError:
        return None
    return place


def look(pid: int = 0, proc: Path = _PROC) -> tuple[Path | None, str]:
    """Where process `pid` (0: this one) can make cgroups for workers, or why it cannot, in words. Changes nothing."""
    pid = pid or os.getpid()
    try:
        mounts = (proc / "self" / "mountinfo").read_text("utf-8").splitlines()
        memberships = (proc / str(pid) / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return None, "this system has no cgroups"
    mounted = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    own = [line.removeprefix("0::/") for line in memberships if line.startswith("0::/")]
    if not (mounted and own):
        return None, "this system has no cgroups of version 2"
    place = Path(mounted[0]) / own[0]
    if place.name.startswith(_NODE):
        return place.parent, ""
    try:
        offered = (place / "cgroup.controllers").read_text("ascii").split()
        members = (place / _MEMBERS).read_text("ascii").split()
    except OSError:
        return None, "its cgroup cannot be read"
    if not set(_NEEDED) <= set(offered):
        return None, "its cgroup has no limits of memory and processes to pass on"
    if not all(os.access(place / name, os.W_OK) for name in ("", _MEMBERS, _PASSED_ON)):
        return None, "its cgroup is not its user's"
    if not {int(member) for member in members} <= _family(pid):
        return None, "other programs are in its cgroup"
    return place, ""


def _family(pid: int) -> set[int]:
    with suppress(psutil.Error):
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    return {pid}


def _sweep(place: Path) -> None:
    """Remove what nodes that were killed left."""
    for path in (*place.glob(f"{_WORKER}*"), *place.glob(f"{_NODE}*")):
        pid = path.name.removeprefix(_WORKER).removeprefix(_NODE).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(OSError):
                path.rmdir()


def _write(file: Path, text: str) -> None:
    """Where the kernel has such a file, and takes that."""
    with suppress(OSError):
        file.write_text(text, "ascii")
