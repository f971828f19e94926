"""An asyncio event loop without a clock: time stands still while anything can be done, and jumps to the next timer when
nothing can. What would run in a thread runs at once. One order of events follows from one program: nothing hangs on
addresses in memory, on the salt of hashes, or on the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


MAX_STILL = 50_000
"""Turns of the loop in one moment: who takes more goes round in circles."""


class Stuck(Exception):
    """Everything waits and nothing will ever happen, or time stands still."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set follows from when it was made; groups cancel their tasks in the order of a set."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **rest: Any) -> None:
        self._serial = next(loop.serials)
        super().__init__(coro, loop=loop, **rest)

    def __hash__(self) -> int:
        return self._serial


def _task(loop: Any, coro: Any, **rest: Any) -> _Task:
    return _Task(coro, loop=loop, **rest)


class VirtualLoop(asyncio.BaseEventLoop):
    """Use with `play`. No sockets, processes, signals or threads."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.serials = itertools.count(1)
        self.steps = self._idle = 0
        self._selector = self
        self.set_task_factory(_task)

    def time(self) -> float:
        """Seconds since the world began."""
        return self.now_s

    def select(self, timeout: float | None) -> list[Any]:
        """What a loop asks its selector: here, to let the time pass. Raises Stuck for waiting without an end."""
        if timeout is None:
            raise Stuck
        self.steps += 1
        self._idle = 0 if timeout else self._idle + 1
        if self._idle > MAX_STILL:
            raise Stuck(f"no time passes at {self.now_s:.3f} s")
        self.now_s += timeout
        return []

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do it now; others have a turn before the caller hears of it."""
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - whatever it raised is the caller's
            self.call_soon(_settle, future.set_exception, future, error)
        else:
            self.call_soon(_settle, future.set_result, future, result)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Any = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """None ever come."""


def _settle(setter: Callable[[Any], None], future: asyncio.Future[Any], what: object) -> None:
    if not future.done():
        setter(what)


MOST_ROUNDS = 8
"""In which what is left of a world is cancelled."""


def play(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """The result of `main` on a loop of its own, with all that it left behind cancelled. Raises Stuck when it waits
    for what cannot happen."""
    loop, collected = VirtualLoop(), gc.isenabled()
    gc.disable()  # what it collects, and when, depends on what the process did before
    try:
        return loop.run_until_complete(main(loop))
    finally:
        _cancel_all(loop)
        loop.close()
        if collected:
            gc.enable()


def _cancel_all(loop: VirtualLoop) -> None:
    """Also those that begin meanwhile: a machine that was to start again does so while others take their time."""
    for _ in range(MOST_ROUNDS):
        if not (tasks := asyncio.all_tasks(loop)):
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=60.0))
