"""What a stranger's code tries against the cgroup that its worker is in. Runs where this process may make cgroups:
`systemd-run --user --scope -p Delegate=yes pytest ...`, or tests/attacks/machine_with_cgroups.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.attacks.test_hostile_worker import TOLD, Heard, _end, all_refused, home, hostile, layers

from fallow.adapters.runners import cgroup, process
from fallow.adapters.runners.process import ProcessRunner
from fallow.ports import WorkerLimits
from fallow.units import MIB, format_size

PLACE, WHY = cgroup.look()
pytestmark = pytest.mark.skipif(PLACE is None, reason=WHY)
__all__ = ["home", "layers"]


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded here, the kernel bounds."""
    monkeypatch.setattr(process, "WATCH_EVERY_S", 3600)


def workers() -> list[Path]:
    assert PLACE is not None
    return list(PLACE.glob("fallow-worker-*"))


@pytest.mark.parametrize(
    "script",
    [
        "held = []\nwhile True: held.append(bytearray(1 << 20))",
        "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): m[at] = 1\nsay(held=1)",
    ],
    ids=["private", "shared, at once"],
)
async def test_memory_ends_it_as_out_of_memory(home: Path, layers: str, script: str) -> None:
    async with hostile(home, script + "\n", ram_bytes=64 * MIB) as (worker, _):
        why = await _end(worker)
        (own,) = workers()
        peak = int((own / "memory.peak").read_text()) if (own / "memory.peak").exists() else 0
    assert (why, worker.condemned) == (f"out of memory: it wanted more than {format_size(64 * MIB)}", True)
    assert peak <= 128 * MIB
    assert workers() == []


async def test_files_that_it_wrote_are_not_its_memory(home: Path, layers: str) -> None:
    script = """
for n in range(200):
    with open(f"f{n}", "wb") as f: f.write(bytes(1 << 20))
say(done=told(lambda: 1))
"""
    async with hostile(home, script + "link.recv(1)", ram_bytes=64 * MIB) as (_, heard):
        assert await heard.answer() == {"done": "1"}


async def test_it_cannot_loosen_its_limits(home: Path, layers: str) -> None:
    """Workers that are given cards see /sys."""
    script = f"""
import pathlib
own = [p for p in pathlib.Path({str(PLACE)!r}).glob("fallow-worker-*")]
say(seen=told(lambda: len(own)), **{{p.name: told(lambda: (p / "memory.max").write_text("max")) for p in own}},
    out=told(lambda: open({str(PLACE)!r} + "/cgroup.procs", "w").write("0")))
"""
    async with hostile(home, script + "link.recv(1)", ram_bytes=512 * MIB, cards=("0",)) as (_, heard):
        found = await heard.answer()
        (own,) = workers()
        assert int((own / "memory.max").read_text()) == 1536 * MIB
    found.pop("seen")
    assert all_refused(found), found


async def test_outside_a_box_its_processes_are_bounded_and_none_is_left(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_THREADS", 64)
    script = """
import time
def family():
    for n in range(300):
        if os.fork() == 0: os.setsid(); time.sleep(600)
say(forked=told(family))
link.recv(1)
"""
    heard, runner = Heard(), ProcessRunner((sys.executable, "-c", TOLD + script), boxed=False)
    async with runner.open(home / "work" / "mine", WorkerLimits(), lambda _m: None, heard.on_line) as worker:
        assert all_refused(await heard.answer())
        (own,) = workers()
        family: list[Any] = [psutil.Process(int(pid)) for pid in (own / "cgroup.procs").read_text().split()]
        assert worker.pid in {one.pid for one in family}
        assert 64 < len(family) <= 64 + process.BOX_PROCESSES
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert workers() == []
