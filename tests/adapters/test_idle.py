"""Readings of this machine and of made-up ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pynvml
import pytest

from fallow.adapters.clock import SystemClock
from fallow.adapters.idle import IdleReader, session_idle_s


class At:
    """A clock that stands still."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("reading does not wait")


def test_reads_this_machine() -> None:
    reader = IdleReader(SystemClock())
    assert reader.read({os.getpid()}).cpu_percent is None
    sum(range(2_000_000))
    reading = reader.read({os.getpid()})
    assert reading.cpu_percent is None or 0 <= reading.cpu_percent <= 100
    assert reading.input_s is None or reading.input_s >= 0
    assert 0 <= reading.day <= 6
    assert 0 <= reading.minute < 24 * 60


def test_what_our_own_workers_use_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 s of all cores together, ours used 4 s, others 1 s; then a new worker of ours used 3 s more."""
    Times = psutil._pslinux.scputimes  # type: ignore[attr-defined]
    zeros = [0.0] * (len(Times._fields) - 4)
    used = {1: 0.0}
    busy = iter([(0.0, 0.0), (5.0, 5.0), (8.0, 12.0)])

    def times() -> object:
        user, idle = next(busy)
        return Times(user, 0.0, 0.0, idle, *zeros)

    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr("fallow.adapters.idle._cpu_seconds", lambda pid: used[pid])
    monkeypatch.setattr(IdleReader, "_family", lambda _self, ours: ours)
    reader = IdleReader(At(1e9))
    assert reader.read(set(used)).cpu_percent is None
    used[1] = 4.0
    assert reader.read(set(used)).cpu_percent == pytest.approx(10.0)
    used[2] = 3.0
    assert reader.read(set(used)).cpu_percent == pytest.approx(0.0)


def test_our_family_includes_what_workers_started() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = IdleReader(SystemClock())._family({parent.pid, 999_999_999})
        assert len(family) == 2
        parent.communicate(b"\n")


def test_the_latest_sign_of_a_person_counts(tmp_path: Path) -> None:
    (tmp_path / "dev/pts").mkdir(parents=True)
    for name, seconds in (("tty1", 500), ("pts/3", 40), ("ttyS0", 1), ("pts/ptmx", 1)):
        (tmp_path / "dev" / name).touch()
        os.utime(tmp_path / "dev" / name, (1_000_000 - seconds, 0))
    assert IdleReader(At(1_000_000), tmp_path).read(set()).input_s == 40


def test_key_presses_count_from_the_second_look_on(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    interrupts, clock = tmp_path / "proc/interrupts", At(1_000)
    reader = IdleReader(clock, tmp_path)
    for now_s, presses, idle_s in ((1_000, 7, None), (1_010, 7, None), (1_020, 9, 0), (1_050, 9, 30)):
        interrupts.write_text(f"   CPU0 CPU1\n  1:  {presses}  0  IO-APIC  1-edge  i8042\n  9: 55 55 acpi\n")
        clock.now_s = now_s
        assert reader.read(set()).input_s == idle_s


def test_a_machine_that_shows_nothing_says_so(tmp_path: Path) -> None:
    assert IdleReader(At(0), tmp_path).read(set()).input_s is None


@pytest.mark.parametrize(
    ("text", "idle_s"),
    [
        ("IdleHint=no\nIdleSinceHint=0\nActiveSession=2\n", 0.0),
        ("IdleHint=yes\nIdleSinceHint=940000000\nActiveSession=2\n", 60.0),
        ("IdleHint=yes\nIdleSinceHint=\nActiveSession=2\n", 0.0),
        ("IdleHint=yes\nIdleSinceHint=940000000\nActiveSession=\n", None),
        ("", None),
    ],
)
def test_reads_the_session_managers_hint(text: str, idle_s: float | None) -> None:
    assert session_idle_s(text, 1_000_000) == idle_s


def test_other_programs_on_the_gpu_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sample:
        def __init__(self, pid: int, percent: int) -> None:
            self.pid, self.smUtil = pid, percent

    samples = {0: [Sample(os.getpid(), 90), Sample(1, 15)], 1: []}
    fakes = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetProcessUtilization": lambda card, _since: samples[card],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    assert IdleReader(SystemClock()).read({os.getpid()}).gpu_percent == 15


def test_the_session_manager_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/seats").mkdir(parents=True)
    (tmp_path / "run/systemd/seats/seat0").touch()
    assert IdleReader(SystemClock(), tmp_path)._session_s() is None or sys.platform == "linux"
