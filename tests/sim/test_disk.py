"""The simulated disk under the node's own log and blob store: what can happen to it, and what that leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fallow.errors import UnavailableError, UsageError, fail
from fallow.sim.disk import Disk, SimBlobs, SimEventLog
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of


def dies_at(disk: Disk, write: int) -> Callable[[], None]:
    """The machine dies in that write, the first being 1."""
    writes = iter(range(1, write + 1))

    def die() -> None:
        if next(writes, 0) == write:
            disk.crash()
            raise fail("E1801", "The machine died.")

    return die


def test_a_disk_that_flushes_loses_nothing_in_a_crash() -> None:
    disk = Disk()
    log, blob = SimEventLog(disk), SimBlobs(100, disk).put(b"kept")
    log.append("a", [b"one"])
    log.put("cell", b"value")
    disk.crash()
    again = SimEventLog(disk)
    assert list(again.read("a")) == [(1, b"one")]
    assert again.get("cell") == b"value"
    assert SimBlobs(100, disk).read(blob, 0, 4) == b"kept"
    assert not SimBlobs(100).has(blob)
    disk.crash()


def test_a_disk_that_lies_loses_what_it_took() -> None:
    disk = Disk()
    disk.flushes = False
    log = SimEventLog(disk)
    log.append("a", [b"one"])
    assert list(log.read("a")) == [(1, b"one")]
    disk.crash()
    assert list(SimEventLog(disk).read("a")) == []
    disk.crash()


def test_dying_in_mid_append_writes_all_or_nothing() -> None:
    disk = Disk()
    disk.on_write = dies_at(disk, 2)
    log = SimEventLog(disk)
    log.append("a", [b"one"])
    with pytest.raises(UnavailableError):
        log.append("a", [b"two", b"three"])
    with pytest.raises(UsageError):
        log.read("a")
    assert list(SimEventLog(disk).read("a")) == [(1, b"one")]
    disk.crash()


@pytest.mark.parametrize("dies", [2, 3])
def test_dying_in_mid_cut_cuts_all_or_nothing(dies: int) -> None:
    disk = Disk()
    disk.on_write = dies_at(disk, dies)
    log = SimEventLog(disk)
    log.append("a", [b"one", b"two"])
    with pytest.raises(UnavailableError):
        log.cut("a", 1, {"snapshot": b"of one"})
        log.append("a", [b"three"])
    again = SimEventLog(disk)
    whole = ([(1, b"one"), (2, b"two")], None)
    assert (list(again.read("a")), again.get("snapshot")) == (whole if dies == 2 else ([(2, b"two")], b"of one"))
    disk.crash()


def test_it_tells_what_was_written() -> None:
    disk, told = Disk(), list[object]()
    disk.written = lambda events, cells: told.append((dict(events), dict(cells)))
    log = SimEventLog(disk)
    log.append("a", [b"one"], {"x": b"1"})
    log.append("a", [])
    log.put("y", b"2")
    log.cut("a", 1, {"z": b"3"})
    assert told == [({"a": [b"one"]}, {"x": b"1"}), ({}, {"y": b"2"}), ({}, {"z": b"3"})]
    disk.crash()


def test_a_full_disk_takes_nothing_and_drops_the_partial() -> None:
    store = SimBlobs(10 * CHUNK_BYTES)
    data = bytes(2 * CHUNK_BYTES)
    kept = store.put(b"kept")
    partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    partial.write(0, data[:CHUNK_BYTES])
    store.disk.full = True
    for attempt in (
        lambda: partial.write(1, data[CHUNK_BYTES:]),
        lambda: store.put(b"x"),
        lambda: store.pin(kept, "a"),
    ):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert caught.value.code == "E1603"
    store.disk.full = False
    partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    assert len(partial.missing()) == 2
    store.close()


def test_dying_before_a_blob_has_its_name_leaves_nothing_of_it() -> None:
    disk = Disk()
    disk.on_write = dies_at(disk, 1)
    with pytest.raises(UnavailableError, match="died"):
        SimBlobs(100, disk).put(b"lost")
    assert not SimBlobs(100, disk).has(blob_id_of(b"lost"))
    disk.crash()
