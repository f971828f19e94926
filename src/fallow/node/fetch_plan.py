"""Who fetches which chunks of a blob, when several sources have it. Decides only: no I/O, and time is told.

The first source is asked for everything. Whoever has nothing to do takes over the later half of what the busiest source
still has to send, so that all of them finish together whatever their speeds, without a size to tune and with few
requests: about log2(chunks) for each source. A chunk is asked for twice only when whoever owes it has sent nothing for
`hedge_s`, and by at most one other source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MIN_SPLIT_CHUNKS = 4
"""Shorter runs are not divided: a new request would cost more time than it saves."""


@dataclass
class _Run:
    """The chunks `at` to `end` (exclusive) that a source is sending, and those it sent that are being written."""

    at: int
    end: int
    moved_s: float
    writing: set[int] = field(default_factory=set[int])
    hedge: bool = False


class FetchPlan:
    """Shares out the chunks in `missing` among sources, which are known by any hashable name."""

    def __init__(self, missing: Iterable[int], hedge_s: float) -> None:
        self._missing = set(missing)
        self._hedge_s = hedge_s
        self._free = _ranges(self._missing)
        self._runs: dict[bytes, _Run] = {}

    @property
    def done(self) -> bool:
        """Whether every chunk is here."""
        return not self._missing

    def next_run(self, source: bytes, now_s: float) -> range | None:
        """The chunks that an idle source should fetch now, or None when there is nothing for it yet. Ask again after
        something changed, and after `hedge_s`."""
        assert source not in self._runs, "one run at a time"
        run = self._take_free(now_s) or self._split(now_s) or self._hedged(now_s)
        if run is None:
            return None
        self._runs[source] = run
        return range(run.at, run.end)

    def current(self, source: bytes) -> int | None:
        """The chunk that a source has to send next; None when its run is over. Runs become shorter when others take
        part of them, and skip nothing."""
        run = self._runs[source]
        return run.at if run.at < run.end else None

    def received(self, source: bytes, now_s: float) -> None:
        """A source sent its current chunk, which is now being checked and written."""
        run = self._runs[source]
        run.writing.add(run.at)
        run.at += 1
        run.moved_s = now_s

    def arrived(self, source: bytes, index: int) -> bool:
        """A chunk is written; -> whether it was the first copy."""
        new = index in self._missing
        self._missing.discard(index)
        self._runs[source].writing.discard(index)
        return new

    def release(self, source: bytes) -> None:
        """A source has ended its run, or failed: what it still owed is free for others."""
        run = self._runs.pop(source, None)
        if run is not None and not run.hedge:
            owed = (run.writing | set(range(run.at, run.end))) & self._missing
            self._free = _ranges(owed.union(*map(set, self._free)))

    def _take_free(self, now_s: float) -> _Run | None:
        self._free = _ranges({index for run in self._free for index in run} & self._missing)
        if not self._free:
            return None
        longest = max(self._free, key=len)
        self._free.remove(longest)
        return _Run(longest.start, longest.stop, now_s)

    def _split(self, now_s: float) -> _Run | None:
        longest = max(
            (run for run in self._runs.values() if not run.hedge), key=lambda run: run.end - run.at, default=None
        )
        if longest is None or longest.end - longest.at < MIN_SPLIT_CHUNKS:
            return None
        middle = longest.end - (longest.end - longest.at) // 2
        taken = _Run(middle, longest.end, now_s)
        longest.end = middle
        return taken

    def _hedged(self, now_s: float) -> _Run | None:
        """A second copy of what a silent source owes."""
        hedged = {index for run in self._runs.values() if run.hedge for index in range(run.at, run.end)}
        for run in self._runs.values():
            silent = not run.hedge and run.at < run.end and now_s - run.moved_s >= self._hedge_s
            if silent and run.at in self._missing and run.at not in hedged:
                # Its later chunks are simply taken over; only the one that may be on its way is asked for twice.
                if run.end - run.at > 1:
                    taken = _Run(run.at + 1, run.end, now_s)
                    run.end = run.at + 1
                    return taken
                return _Run(run.at, run.end, now_s, hedge=True)
        return None


def _ranges(indices: set[int]) -> list[range]:
    """The runs of neighbours in a set of numbers, in order."""
    runs: list[range] = []
    for index in sorted(indices):
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs
