"""The EventLog port in memory, with a disk that can lose what was not flushed.

The real log flushes before it returns, so nothing that it returned from is lost. `Disk(flushes=False)` is the disk that
lies (or the log with its flush left out): tests plant it to see that losing acknowledged events is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fallow.errors import fail

Written = Callable[[Mapping[str, Sequence[bytes]], Mapping[str, bytes]], None]


def _unseen(_events: Mapping[str, Sequence[bytes]], _cells: Mapping[str, bytes]) -> None:
    return


class Disk:
    """What outlives the process. `crash` forgets what was written since the last flush and breaks the logs that are
    open. With `flushes` every write is flushed at once."""

    def __init__(self, *, flushes: bool = True) -> None:
        self.flushes = flushes
        self.generation = 0
        self.writes = 0
        self.crash_before: Callable[[int], bool] = lambda _write: False
        """Asked before each write (they count up from 1) whether the machine dies there, in mid-append."""
        self.written: Written = _unseen
        """Told after each write what was written; the machine may die in it."""
        self.streams: dict[str, list[bytes]] = {}
        self.cells: dict[str, bytes] = {}
        self.cuts: dict[str, int] = {}
        self._safe_streams: dict[str, list[bytes]] = {}
        self._safe_cells: dict[str, bytes] = {}
        self._safe_cuts: dict[str, int] = {}

    def write(self, streams: Mapping[str, Sequence[bytes]], cells: Mapping[str, bytes]) -> None:
        """One transaction: all of it or nothing. Raises UnavailableError E1801 when the machine dies first."""
        self._count()
        for stream, events in streams.items():
            self.streams.setdefault(stream, []).extend(events)
        self.cells |= cells
        if self.flushes:
            self.flush(streams, cells)
        self.written(streams, cells)

    def _count(self) -> None:
        self.writes += 1
        if self.crash_before(self.writes):
            self.crash()
            raise fail("E1801", "The machine died.")

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str]) -> None:
        """One transaction too. A disk that lies keeps this to itself like anything else."""
        self._count()
        kept = (self.streams, self.cells, self.cuts)
        safe = (self._safe_streams, self._safe_cells, self._safe_cuts)
        for streams, values, cuts in (kept, safe) if self.flushes else (kept,):
            before = cuts.get(stream, 0)
            cuts[stream] = max(before, min(upto, before + len(streams.get(stream, ()))))
            streams[stream] = streams.get(stream, [])[cuts[stream] - before :]
            values |= cells
            for key in gone:
                values.pop(key, None)
        self.written({}, cells)

    def flush(self, streams: Mapping[str, Sequence[bytes]], cells: Mapping[str, bytes]) -> None:
        """Make what was just written safe."""
        for stream, events in streams.items():
            self._safe_streams.setdefault(stream, []).extend(events)
        self._safe_cells |= cells

    def crash(self) -> None:
        """Lose what was not flushed. Logs opened before are dead."""
        self.generation += 1
        self.streams = {stream: list(events) for stream, events in self._safe_streams.items()}
        self.cells = dict(self._safe_cells)
        self.cuts = dict(self._safe_cuts)


class MemoryEventLog:
    """The port over a `Disk`. After a crash of the disk, or `close`, every method raises UnavailableError E1801."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        self._generation = self._disk.generation
        self._closed = False

    def _open(self) -> Disk:
        if self._closed or self._generation != self._disk.generation:
            raise fail("E1801", "This log is closed.")
        return self._disk

    def append(self, stream: str, events: Sequence[bytes], cells: Mapping[str, bytes] | None = None) -> int:
        """Add events to the end of `stream` and set `cells`, all or none. -> the number of the last event that is
        there."""
        disk = self._open()
        if events or cells:
            disk.write({stream: events} if events else {}, cells or {})
        return disk.cuts.get(stream, 0) + len(disk.streams.get(stream, ()))

    def read(self, stream: str, after: int = 0) -> Sequence[tuple[int, bytes]]:
        """The events after number `after`, in order."""
        disk = self._open()
        cut = disk.cuts.get(stream, 0)
        events, start = disk.streams.get(stream, []), max(after - cut, 0)
        return list(enumerate(events[start:], cut + start + 1))

    def put(self, key: str, value: bytes) -> None:
        """Set a cell."""
        self.put_all({key: value})

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        """Set several cells, all or none."""
        self._open().write({}, cells)

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str] = ()) -> None:
        """Forget events up to `upto`, set `cells`, forget the cells `gone`, all or nothing."""
        self._open().cut(stream, upto, cells, gone)

    def get(self, key: str) -> bytes | None:
        """A cell's value, None when it was never set."""
        return self._open().cells.get(key)

    def keys(self, prefix: str) -> Sequence[str]:
        """The cells whose key starts with `prefix`, in order."""
        return sorted(key for key in self._open().cells if key.startswith(prefix))

    def close(self) -> None:
        """Let go."""
        self._closed = True
