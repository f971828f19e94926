"""This machine as the port asks for it; what it is made of is tested by itself."""

from __future__ import annotations

from pathlib import Path

from fallow.adapters.clock import SystemClock
from fallow.adapters.hardware import numerics
from fallow.adapters.machine import ThisMachine


def test_answers_what_a_provider_asks(tmp_path: Path) -> None:
    machine = ThisMachine(SystemClock())
    assert machine.measure(tmp_path, 3).numerics == numerics(3)
    assert machine.can_do("echo")
    assert machine.speeds(tmp_path, 1)["echo"] > 0
    assert machine.reading(set()).cpu_percent is None
    assert (machine.reading(set()).cpu_percent or 0.0) >= 0.0
