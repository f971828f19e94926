"""Lane tasks that an API key pays for: reserved before anybody works on them, told only once that is on disk, booked at
what they cost when they are over. The disk is written while the model reads the prompt, so nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fallow.errors import FallowError
from fallow.node.api_keys import ApiKeys, Saved
from fallow.units import cost_ucr
from fallow.wire.local import PaidTask
from fallow.wire.messages import LaneItem, LaneResult, Message

SpawnNamed = Callable[[Coroutine[None, None, None], str], "asyncio.Task[Any]"]


@dataclass
class _Payment:
    """One task's. `held` is what must not be told before the reservation is `saved`; `error` is why it cannot be."""

    operation: bytes
    price_ucr: int
    saved: bool = False
    held: list[LaneItem] = field(default_factory=list[LaneItem])
    error: FallowError | None = None


class Payments:
    """Those of one client, by its numbers. `put` tells it something, `stop` ends the work on a number; `spawn` runs the
    writing."""

    def __init__(
        self, keys: ApiKeys, spawn: SpawnNamed, put: Callable[[Message], None], stop: Callable[[int], None]
    ) -> None:
        self._keys, self._spawn, self._put, self._stop = keys, spawn, put, stop
        self._open: dict[int, _Payment] = {}

    def reserve(self, task: PaidTask) -> None:
        """Before the task is asked. Raises E1902 and E1905 as `ApiKeys.reserve` does."""
        operation = self._keys.reserve(task.secret, task.amount_ucr)
        payment = self._open[task.number] = _Payment(operation, task.price_ucr)

        def saved(error: FallowError | None) -> None:
            held, payment.held = payment.held, []
            payment.saved, payment.error = True, error
            if error is not None:
                self._stop(task.number)
                return
            for item in held:
                self._put(item)

        self._write(saved)

    def holds(self, item: LaneItem) -> bool:
        """Whether a piece has to wait, or will never be told; it is kept here then."""
        payment = self._open.get(item.number)
        if payment is None or (payment.saved and payment.error is None):
            return False
        if not payment.saved:
            payment.held.append(item)
        return True

    def settle(self, result: LaneResult, then: Callable[[LaneResult], None]) -> bool:
        """Book what a task has cost and call `then` with what to tell once that is on disk. -> False for a task that no
        key pays for; nothing happens then."""
        payment = self._open.pop(result.number, None)
        if payment is None:
            return False
        if payment.error is not None:
            result = LaneResult(result.number, b"", 0, payment.error.code, payment.error.what)
        self._keys.post(payment.operation, cost_ucr(result.units, payment.price_ucr))
        # what could not be saved is told all the same: the work is done, and it is saved with the next change
        self._write(lambda _error: then(result))
        return True

    def _write(self, then: Saved) -> None:
        self._keys.saved(then)
        with suppress(FallowError):  # the node is shutting down: nobody hears of it any more
            self._spawn(self._keys.write(), "key saving")
