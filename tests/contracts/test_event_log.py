"""What every EventLog does, whatever it writes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.adapters.event_log import SqliteEventLog
from fallow.ports import EventLog

Reopen = Callable[[], Any]


class Model:
    """Streams, their cuts, and cells, in a few lines."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[int, bytes]]] = {}
        self.last: dict[str, int] = {}
        self.cells: dict[str, bytes] = {}

    def append(self, stream: str, events: Sequence[bytes]) -> int:
        last = self.last.setdefault(stream, 0)
        self.streams.setdefault(stream, []).extend(enumerate(events, last + 1))
        self.last[stream] += len(events)
        return self.last[stream]

    def read(self, stream: str, after: int = 0) -> list[tuple[int, bytes]]:
        return [event for event in self.streams.get(stream, []) if event[0] > after]

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str]) -> None:
        self.streams[stream] = self.read(stream, upto)
        self.cells = {key: value for key, value in {**self.cells, **cells}.items() if key not in gone}


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same log again and again, as restarts do."""
    opened = list[EventLog]()

    def again() -> EventLog:
        while opened:
            opened.pop().close()
        opened.append(SqliteEventLog(tmp_path / "log.db"))
        return opened[-1]

    yield again
    for log in opened:
        log.close()


def test_events_are_numbered_from_one_in_each_stream(reopen: Reopen) -> None:
    log = reopen()
    assert log.append("a", [b"one", b"two"]) == 2
    assert log.append("b", [b"other"]) == 1
    assert log.append("a", [b"three"]) == 3
    assert list(log.read("a")) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert list(log.read("a", 2)) == [(3, b"three")]
    assert list(log.read("a", 3)) == list(log.read("a", 99)) == []
    assert list(log.read("unknown")) == []


def test_appending_nothing_tells_where_the_stream_ends(reopen: Reopen) -> None:
    log = reopen()
    assert log.append("a", []) == 0
    log.append("a", [b"", b"x"])
    assert log.append("a", []) == 2


def test_cells_are_set_together_with_events(reopen: Reopen) -> None:
    log = reopen()
    assert log.append("a", [b"one"], {"x": b"1"}) == 1
    assert log.append("a", [], {"y": b"2"}) == 1
    assert (log.get("x"), log.get("y"), list(log.read("a"))) == (b"1", b"2", [(1, b"one")])
    log = reopen()
    assert (log.get("x"), log.get("y"), log.append("a", [])) == (b"1", b"2", 1)


def test_everything_is_there_after_a_restart(reopen: Reopen) -> None:
    log = reopen()
    log.append("a", [b"one"])
    log.put("cell", b"value")
    log = reopen()
    assert list(log.read("a")) == [(1, b"one")]
    assert log.append("a", [b"two"]) == 2
    assert log.get("cell") == b"value"


def test_cells_are_replaced_and_listed_by_prefix(reopen: Reopen) -> None:
    log = reopen()
    assert log.get("none") is None
    log.put_all({"b/2": b"x", "b/10": b"y", "b0": b"", "a": b"z", "b/ü": b"u", "B/1": b"v"})
    log.put("b/2", b"new")
    assert log.get("b/2") == b"new"
    assert log.get("b0") == b""
    assert list(log.keys("b/")) == ["b/10", "b/2", "b/ü"]
    assert list(log.keys("")) == sorted(["b/2", "b/10", "b0", "a", "b/ü", "B/1"])
    assert list(log.keys("b/%")) == list(log.keys("c")) == []


def test_a_cut_forgets_what_is_before_it_and_nothing_else(reopen: Reopen) -> None:
    log = reopen()
    log.append("a", [b"one", b"two", b"three"])
    log.append("b", [b"other"])
    log.put_all({"old": b"1", "kept": b"2"})
    log.cut("a", 2, {"snapshot": b"of two"}, ["old", "never set"])
    for _ in range(2):
        assert list(log.read("a")) == list(log.read("a", 2)) == [(3, b"three")]
        assert list(log.read("b")) == [(1, b"other")]
        assert (log.get("snapshot"), log.get("old"), log.get("kept")) == (b"of two", None, b"2")
        log = reopen()


def test_numbers_go_on_after_everything_was_cut(reopen: Reopen) -> None:
    log = reopen()
    log.append("a", [b"one", b"two"])
    log.cut("a", 2, {})
    log = reopen()
    assert list(log.read("a")) == []
    assert log.append("a", []) == 2
    assert log.append("a", [b"three"]) == 3
    log.cut("a", 99, {"all": b""})  # what is not there yet is not forgotten before it comes
    assert log.append("a", [b"four"]) == 4
    log.cut("a", 1, {})  # a cut before the last one changes nothing
    assert list(log.read("a")) == [(4, b"four")]
    assert log.append("unknown", []) == 0
    log.cut("unknown", 5, {})
    assert log.append("unknown", [b"first"]) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.binary(max_size=20), max_size=3)), max_size=8))
def test_it_is_like_its_model_on_cuts(steps: list[tuple[str, list[bytes]]]) -> None:
    memory, sqlite = Model(), SqliteEventLog(Path(":memory:"))
    try:
        for stream, events in steps:
            for log in (memory, sqlite):
                log.append(stream, events)
                log.cut(stream, len(events), {stream: b"%d" % len(events)}, ["b"])
            assert memory.append(stream, []) == sqlite.append(stream, [])
            for other in "ab":
                assert list(memory.read(other)) == list(sqlite.read(other))
                assert memory.cells.get(other) == sqlite.get(other)
    finally:
        sqlite.close()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.binary(max_size=20), max_size=3)), max_size=8))
def test_it_is_like_its_model(steps: list[tuple[str, list[bytes]]]) -> None:
    memory, sqlite = Model(), SqliteEventLog(Path(":memory:"))
    try:
        for stream, events in steps:
            assert memory.append(stream, events) == sqlite.append(stream, events)
            assert list(memory.read(stream, 1)) == list(sqlite.read(stream, 1))
    finally:
        sqlite.close()
