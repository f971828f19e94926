"""Reads what the owner's rule asks about: user input, and use of processor and GPU by programs that are not ours.

Input is seen where the system shows it without special rights: terminals (their access time), the keyboard controller's
interrupts, and the session manager's idle hint, which covers X11 and Wayland desktops. A source that cannot be read is
left out; with none, the answer is None and the rule says what that means.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import psutil
import pynvml

from fallow.adapters.hardware import cards
from fallow.ports import Clock
from fallow.rules.idle import Reading
from fallow.units import MS_PER_S

LOGIND_TIMEOUT_S = 2
_NVML = cast(Any, pynvml)
_KEYBOARD = ("i8042", "kbd", "ps/2")


class IdleReader:
    """Takes readings, each compared with the one before. Reading blocks for some milliseconds: call it in a thread."""

    def __init__(self, clock: Clock, root: Path = Path("/")) -> None:
        self._clock, self._root = clock, root
        self._cpu_before: tuple[float, float, dict[int, float]] | None = None
        self._presses: int | None = None
        self._pressed_s: float | None = None
        self._gpu_seen_us = 0

    def read(self, ours: set[int]) -> Reading:
        """What is so now; use of the processor is since the reading before. `ours` are the processes that count as
        ours, with all that they started."""
        local = datetime.fromtimestamp(self._clock.now_ms() / MS_PER_S).astimezone()
        ours = self._family(ours)
        return Reading(
            input_s=self._input_s(),
            cpu_percent=self._cpu_percent(ours),
            gpu_percent=self._gpu_percent(ours),
            day=local.weekday(),
            minute=local.hour * 60 + local.minute,
        )

    def _family(self, ours: set[int]) -> set[int]:
        found: set[int] = set()
        for pid in ours:
            try:
                process = psutil.Process(pid)
                found.update({pid, *(child.pid for child in process.children(recursive=True))})
            except psutil.Error:
                continue
        return found

    # processor and GPU ----------------------------------------------------------------------------------------------

    def _cpu_percent(self, ours: set[int]) -> float | None:
        """Of all cores together. The first reading has nothing to compare with and gives None."""
        times = psutil.cpu_times()
        idle = times.idle + float(getattr(times, "iowait", 0.0))
        now = (sum(times[:8]), idle, {pid: _cpu_seconds(pid) for pid in ours})
        before, self._cpu_before = self._cpu_before, now
        if before is None or now[0] <= before[0]:
            return None
        whole = now[0] - before[0]
        mine = sum(max(used - before[2].get(pid, 0.0), 0.0) for pid, used in now[2].items())
        return min(max(100.0 * (whole - (now[1] - before[1]) - mine) / whole, 0.0), 100.0)

    def _gpu_percent(self, ours: set[int]) -> float | None:
        """Of the busiest card; None without cards."""
        with suppress(pynvml.NVMLError), cards() as handles:
            since_us, self._gpu_seen_us = self._gpu_seen_us, self._clock.now_ms() * 1000
            return max((_card_percent(card, since_us, ours) for card in handles), default=None)
        return None

    # input ----------------------------------------------------------------------------------------------------------

    def _input_s(self) -> float | None:
        """Seconds since the latest sign of a person, over all sources that can be read."""
        sources = (self._terminals_s(), self._keyboard_s(), self._session_s())
        return min((seconds for seconds in sources if seconds is not None), default=None)

    def _terminals_s(self) -> float | None:
        now_s = self._clock.now_ms() / MS_PER_S
        found: list[float] = []
        for pattern in ("dev/tty[0-9]*", "dev/pts/[0-9]*"):
            for terminal in self._root.glob(pattern):
                try:
                    found.append(max(now_s - terminal.stat().st_atime, 0.0))
                except OSError:
                    continue
        return min(found, default=None)

    def _keyboard_s(self) -> float | None:
        """By counting interrupts of the keyboard controller: None until one was seen, or where there is none."""
        try:
            lines = (self._root / "proc/interrupts").read_text("ascii", "replace").lower().splitlines()
        except OSError:
            return None
        rows = [line.split() for line in lines if any(name in line for name in _KEYBOARD)]
        presses = sum(int(word) for row in rows for word in row[1:] if word.isdecimal())
        if self._presses is not None and presses != self._presses:
            self._pressed_s = self._clock.monotonic_s()
        self._presses = presses
        return None if self._pressed_s is None else self._clock.monotonic_s() - self._pressed_s

    def _session_s(self) -> float | None:
        if not (self._root / "run/systemd/seats/seat0").exists():
            return None
        try:
            command = ["loginctl", "show-seat", "seat0", "-p", "IdleHint", "-p", "IdleSinceHint", "-p", "ActiveSession"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOGIND_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return session_idle_s(done.stdout, self._clock.now_ms())


def session_idle_s(text: str, now_ms: int) -> float | None:
    """What the session manager's answer means: None when nobody is logged in at the screen."""
    rows = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if not rows.get("ActiveSession"):
        return None
    if rows.get("IdleHint") != "yes":
        return 0.0
    since_us = rows.get("IdleSinceHint", "")
    return max(now_ms / MS_PER_S - int(since_us) / 1e6, 0.0) if since_us.isdecimal() else 0.0


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def _card_percent(card: object, since_us: int, ours: set[int]) -> float:
    try:
        samples = _NVML.nvmlDeviceGetProcessUtilization(card, since_us)
    except pynvml.NVMLError:  # none used it since, or the card does not tell
        return 0.0
    return min(sum(float(sample.smUtil) for sample in samples if sample.pid not in ours), 100.0)
