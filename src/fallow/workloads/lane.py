"""Lanes in the worker: many small tasks of one kind, answered in bulk where they are quick and side by side where they
stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from fallow.errors import FallowError, fail
from fallow.kinds.registry import KINDS
from fallow.wire.messages import LaneItem, LaneResult, LaneTask
from fallow.wire.worker import MAX_LANE_BATCH, LaneAnswers, Preload
from fallow.workloads.engines import Engine
from fallow.workloads.task import program

MAX_BATCH_BYTES = 4 << 20
MAX_WHAT_CHARS = 1000
GATHER_S = 0.08
"""How long pieces of answers are joined before they are sent: each one that is sent alone costs every process on its
way to the reader, on the cores that the engine computes on, and nobody reads faster than twelve pieces a second."""
SendAnswers = Callable[[LaneAnswers], None]


BY_INPUT = (ValueError, LookupError, TypeError, OverflowError, RuntimeError, EOFError)
"""What libraries raise over data that is not what they expect; of a task it says that its inputs are at fault. Whether
they are, another machine tells: it takes two that agree."""


def code_of(error: Exception) -> str:
    """The code of an error that a workload did not expect."""
    return "E1710" if isinstance(error, BY_INPUT) else "E9001"


class WorkerLane(Protocol):
    """Ready for tasks of one kind. `take` may answer later, and from other threads."""

    @property
    def context_tokens(self) -> int: ...

    def take(self, tasks: Iterable[LaneTask]) -> None: ...

    def settle(self) -> None:
        """Everything that was read has been taken: send what is waiting to go out together."""
        ...

    def cancel(self, numbers: Iterable[int]) -> None: ...


def open_lane(order: Preload, tell: SendAnswers, log: Callable[[str], None]) -> WorkerLane:
    """Get ready for the kind that `order` names; `log` is told what its owner may want to know. Errors: E1707 for a
    kind that has no lanes, and those of its program."""
    kind = KINDS.get(order.kind)
    if kind is None or kind.lane is None:
        raise fail("E1707", f"{order.kind[:40]!r} has no lanes.")
    return program(kind, kind.lane.program)(order, tell, log)


class QuickLane:
    """Answers at once, on the reading thread, each metered at `units`; all answers to one read go out together."""

    context_tokens = 0

    def __init__(self, work: Callable[[LaneTask], bytes], tell: SendAnswers, units: int = 1) -> None:
        self._work, self._tell, self._units = work, tell, units
        self._waiting: list[LaneResult] = []
        self._bytes = 0

    def take(self, tasks: Iterable[LaneTask]) -> None:
        work, waiting = self._work, self._waiting
        for task in tasks:
            try:
                value = work(task)
                waiting.append(LaneResult(task.number, value, self._units))
                self._bytes += len(value)
            except FallowError as error:
                waiting.append(refused(task.number, error))
            if self._bytes >= MAX_BATCH_BYTES or len(waiting) >= MAX_LANE_BATCH:
                self.settle()

    def settle(self) -> None:
        if self._waiting:
            self._tell(LaneAnswers(tuple(self._waiting)))
            self._waiting.clear()
            self._bytes = 0

    def cancel(self, numbers: Iterable[int]) -> None:
        """Too late: they are answered already."""


AnswerLane = Callable[[Engine, bytes, int, Callable[[str], bool]], tuple[bytes, int]]


class _Out:
    """What the streams of a lane say, on its way out. The first piece of an answer goes at once, and so does any that
    comes GATHER_S after the last that went, with all that others have held back since; the rest waits for the next
    piece or the end. So an engine that is slower than that sends every token by itself. Several threads speak."""

    def __init__(self, tell: SendAnswers) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # held while telling: an answer must not overtake its pieces
        self._held: dict[int, list[str]] = {}
        self._begun: set[int] = set()
        self._sent_s = float("-inf")

    def piece(self, number: int, piece: str) -> None:
        with self._lock:
            self._held.setdefault(number, []).append(piece)
            now_s = time.perf_counter()
            if number not in self._begun or now_s - self._sent_s >= GATHER_S:
                self._begun.add(number)
                self._sent_s = now_s
                self._tell(LaneAnswers(tuple(self._take(other) for other in list(self._held))))

    def result(self, result: LaneResult) -> None:
        with self._lock:
            self._begun.discard(result.number)
            items = (self._take(result.number),) if result.number in self._held else ()
            self._tell(LaneAnswers((*items, result)))

    def _take(self, number: int) -> LaneItem:
        pieces = self._held.pop(number)
        return LaneItem(number, "".join(pieces).encode(), len(pieces))


class StreamLane:
    """Answers up to `parallel` tasks side by side; the rest wait in order. How many may wait is bounded by the lane's
    window, which the provider enforces."""

    def __init__(self, engine: Engine, answer: AnswerLane, parallel: int, tell: SendAnswers) -> None:
        self._engine, self._answer, self._out = engine, answer, _Out(tell)
        self._queue: queue.SimpleQueue[LaneTask] = queue.SimpleQueue()
        self._open: set[int] = set()
        self._unwanted: set[int] = set()
        self.context_tokens = engine.context_tokens
        for number in range(parallel):
            threading.Thread(target=self._serve, name=f"stream-{number}", daemon=True).start()

    def take(self, tasks: Iterable[LaneTask]) -> None:
        for task in tasks:
            self._open.add(task.number)
            self._queue.put(task)

    def settle(self) -> None:
        """Nothing waits: streams speak for themselves."""

    def cancel(self, numbers: Iterable[int]) -> None:
        self._unwanted |= self._open.intersection(numbers)

    def _serve(self) -> None:
        while True:
            task = self._queue.get()
            result = self._result(task)
            self._open.discard(task.number)
            self._unwanted.discard(task.number)
            self._out.result(result)

    def _result(self, task: LaneTask) -> LaneResult:
        def emit(piece: str) -> bool:
            if task.stream and piece:
                self._out.piece(task.number, piece)
            return task.number not in self._unwanted

        try:
            if task.number in self._unwanted:
                raise fail("E1402", "The task was cancelled.")
            value, units = self._answer(self._engine, task.params, task.seed, emit)
            return LaneResult(task.number, value, units)
        except FallowError as error:
            return refused(task.number, error)
        except MemoryError:
            return LaneResult(task.number, b"", 0, "E1704", "The worker ran out of memory.")
        except Exception as error:  # noqa: BLE001 - the task boundary: one request must not end the others
            return LaneResult(task.number, b"", 0, code_of(error), f"{type(error).__name__}: {error}"[:MAX_WHAT_CHARS])


def refused(number: int, error: FallowError) -> LaneResult:
    """The answer to a task that failed with `error`."""
    return LaneResult(number, b"", 0, error.code, str(error)[:MAX_WHAT_CHARS])
