"""The third repair of iroh's Python binding: keep Python's collector of cyclic garbage out of iroh's threads.

iroh tells Python that something is ready while it holds the lock of a connection. If Python collects garbage just then,
in that thread, and finds a stream of iroh's in it, the stream's destructor waits for the lock that its own thread
holds; soon everybody else waits too, and the process stands still for good (seen once in about 500 downloads). So while
an endpoint is open the collector does not start by itself, and the endpoint's own loop calls `sweep` now and then: no
lock is held there, and what one finds there may wait for iroh's thread without that thread waiting for it.
"""

from __future__ import annotations

import gc
import time

FULL_SHARE = 0.01
"""The most of a process's time that full collections may take."""


class _Collector:
    def __init__(self) -> None:
        self.endpoints, self.ours, self.full_at_s = 0, False, 0.0


_collector = _Collector()


def hold() -> None:
    """Stop the collector until `let_go` has been called as often. One that was off already stays a matter of whoever
    switched it off. What is there now (some 80,000 objects of modules, which stay) is not looked through by any sweep:
    that took 36 ms, in the middle of somebody's answer."""
    if _collector.endpoints == 0:
        _collector.ours = gc.isenabled()
        gc.disable()
        if _collector.ours:
            gc.freeze()
    _collector.endpoints += 1


def let_go() -> None:
    """The opposite of `hold`."""
    _collector.endpoints -= 1
    if _collector.endpoints == 0 and _collector.ours:
        gc.unfreeze()
        gc.enable()


def sweep() -> None:
    """Collect what the collector would have by now; the oldest objects, which may be many, no more often than
    FULL_SHARE allows."""
    if not _collector.ours:
        return
    thresholds, counts = gc.get_threshold(), gc.get_count()
    due = [n for n, (count, most) in enumerate(zip(counts, thresholds, strict=True)) if count > most]
    if not due or not thresholds[0]:
        return
    began_s = time.perf_counter()
    full = due[-1] == 2 and began_s >= _collector.full_at_s
    gc.collect(2 if full else min(due[-1], 1))
    if full:
        now_s = time.perf_counter()
        _collector.full_at_s = now_s + (now_s - began_s) / FULL_SHARE
