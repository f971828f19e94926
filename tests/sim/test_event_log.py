from __future__ import annotations

import pytest

from fallow.errors import UnavailableError
from fallow.sim.event_log import Disk, MemoryEventLog


def test_a_disk_that_flushes_loses_nothing_in_a_crash() -> None:
    disk = Disk()
    log = MemoryEventLog(disk)
    log.append("a", [b"one"])
    log.put("cell", b"value")
    disk.crash()
    again = MemoryEventLog(disk)
    assert list(again.read("a")) == [(1, b"one")]
    assert again.get("cell") == b"value"


def test_a_disk_that_lies_loses_what_it_took() -> None:
    disk = Disk(flushes=False)
    log = MemoryEventLog(disk)
    log.append("a", [b"one"])
    assert list(log.read("a")) == [(1, b"one")]
    disk.crash()
    assert list(MemoryEventLog(disk).read("a")) == []


def test_dying_in_mid_append_writes_all_or_nothing() -> None:
    disk = Disk()
    disk.crash_before = lambda write: write == 2
    log = MemoryEventLog(disk)
    log.append("a", [b"one"])
    with pytest.raises(UnavailableError):
        log.append("a", [b"two", b"three"])
    with pytest.raises(UnavailableError):
        log.read("a")
    assert list(MemoryEventLog(disk).read("a")) == [(1, b"one")]


def test_dying_in_mid_cut_cuts_all_or_nothing() -> None:
    for dies in (2, 3):
        disk = Disk()
        disk.crash_before = lambda write, dies=dies: write == dies
        log = MemoryEventLog(disk)
        log.append("a", [b"one", b"two"])
        with pytest.raises(UnavailableError):
            log.cut("a", 1, {"snapshot": b"of one"})
            log.append("a", [b"three"])
        again = MemoryEventLog(disk)
        whole = ([(1, b"one"), (2, b"two")], None)
        assert (list(again.read("a")), again.get("snapshot")) == (whole if dies == 2 else ([(2, b"two")], b"of one"))


def test_a_closed_log_is_closed() -> None:
    log = MemoryEventLog()
    log.close()
    with pytest.raises(UnavailableError):
        log.get("x")
