"""A short memory of what the steward serves, and its word on keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from fallow.errors import FallowError, fail
from fallow.ports import Clock
from fallow.sdk.link import NodeSocket
from fallow.wire.local import CheckKey, ListModels, ModelList, ServedModel

CALL_S = 10.0
FRESH_S, OLD_S, GOOD_S = 1.0, 5.0, 10.0
"""Fresh enough to be shown; old enough to be asked for again beside a request; good enough to begin a request with."""
CHECKED_AT_ONCE = 64
"""Keys that the steward is asked about at once; each costs a socket."""
SpawnTask = Callable[[Coroutine[None, None, None], str], asyncio.Task[None]]


class Models:
    """`spawn` runs something beside the requests."""

    def __init__(self, link: NodeSocket, clock: Clock, spawn: SpawnTask) -> None:
        self._link, self._clock, self._spawn = link, clock, spawn
        self._models: tuple[ServedModel, ...] = ()
        self._asked_at_s = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._checks = asyncio.Semaphore(CHECKED_AT_ONCE)

    async def served(self) -> tuple[ServedModel, ...]:
        """What is served now, at most a second old."""
        if self._age_s() > FRESH_S:
            found = await self._link.call(ListModels(), CALL_S)
            assert isinstance(found, ModelList)
            self._models, self._asked_at_s = found.models, self._clock.monotonic_s()
        return self._models

    async def find(self, name: str) -> ServedModel:
        """By what was served a moment ago, so that no request waits for the list: a lane whose model has gone says so
        itself. Raises UsageError E1901 for a model that is not served."""
        known = [model for model in self._models if model.name == name]
        if known and self._age_s() <= GOOD_S:
            self._refresh()
            return known[0]
        for model in await self.served():
            if model.name == name:
                return model
        raise fail("E1901", f"The model {name[:200]!r} is not served here.")

    async def check(self, secret: str) -> None:
        """Raises UsageError E1902 for a wrong key."""
        async with self._checks:
            await self._link.call(CheckKey(secret), CALL_S)

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._asked_at_s

    def _refresh(self) -> None:
        if self._age_s() > OLD_S and self._refreshing is None:
            self._refreshing = self._spawn(self._ask(), "models")

    async def _ask(self) -> None:
        try:
            await self.served()
        except FallowError:  # the steward is away; the next request will hear of it
            self._asked_at_s = float("-inf")
        finally:
            self._refreshing = None
