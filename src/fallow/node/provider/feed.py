"""Lease streams: what a requester follows with WatchLease. Claims, failures and leavings are in the log before anybody
hears of them and are sent again from wherever a watcher stopped; progress and log lines pass by once.

Bounded against: watchers without number (the oldest is dropped), watchers that do not read (what passes by is dropped
for them; what is durable waits in the log).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from fallow.errors import fail
from fallow.node.services import Services
from fallow.rules.provider.events import EmitEvent, SignClaim
from fallow.wire.codec import encode, recall
from fallow.wire.messages import Claimed, LaneClaimed, LeaseEvent, LogLine, Progress

MAX_WATCHERS = 8
MAX_PASSING = 256
NO_TASK = bytes(32)


class _Watcher:
    """One who follows a lease."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.durable = True
        self.passing: deque[Progress | LogLine] = deque(maxlen=MAX_PASSING)
        self.dropped = False


class Feeds:
    """All lease streams of a provider."""

    def __init__(self, services: Services) -> None:
        self._s = services
        self._last: dict[bytes, int] = {}
        self._watchers: dict[bytes, list[_Watcher]] = {}

    async def append(self, effects: Iterable[EmitEvent | SignClaim]) -> None:
        """Make events durable, in their order, and tell the watchers. Those that are there already are left as they
        are: a claim that was heard of never changes."""
        by_lease: dict[bytes, list[bytes]] = {}
        for effect in effects:
            last = self._last_of(effect.lease) + len(by_lease.get(effect.lease, ()))
            if effect.sequence <= last:
                continue
            assert effect.sequence == last + 1, "a gap in a lease's stream"
            by_lease.setdefault(effect.lease, []).append(encode(self._event(effect)))
        for lease, events in by_lease.items():
            self._last[lease] = await asyncio.to_thread(self._s.log.append, _stream(lease), events)
            for watcher in self._watchers.get(lease, ()):
                watcher.durable = True
                watcher.news.set()

    def _last_of(self, lease: bytes) -> int:
        if lease not in self._last:
            self._last[lease] = self._s.log.append(_stream(lease), [])
        return self._last[lease]

    def _event(self, effect: EmitEvent | SignClaim) -> LeaseEvent:
        if isinstance(effect, EmitEvent):
            return LeaseEvent(effect.sequence, effect.at_ms, effect.body)
        claim = self._s.identity.sign(effect.root, self._s.bank_account)
        if effect.output is None:
            return LeaseEvent(effect.sequence, effect.at_ms, LaneClaimed(claim, effect.first))
        holders = (self._s.rpc.address(),)
        body = Claimed(effect.task, effect.output, claim, effect.metrics, holders)
        return LeaseEvent(effect.sequence, effect.at_ms, body)

    def passing(self, lease: bytes, body: Progress | LogLine) -> None:
        """Show something to whoever watches now."""
        for watcher in self._watchers.get(lease, ()):
            watcher.passing.append(body)
            watcher.news.set()

    async def follow(self, lease: bytes, after: int) -> AsyncGenerator[LeaseEvent]:
        """Events from the one after `after`, for as long as the caller likes. Begins with a sign of life, so that the
        other side knows at once that it is heard."""
        watcher = _Watcher()
        watchers = self._watchers.setdefault(lease, [])
        watchers.append(watcher)
        if len(watchers) > MAX_WATCHERS:
            oldest = watchers.pop(0)
            oldest.dropped = True
            oldest.news.set()
        watcher.passing.append(Progress(NO_TASK, 0, 0, "watching"))
        try:
            while not watcher.dropped:
                watcher.news.clear()
                if watcher.durable:
                    watcher.durable = False
                    for number, raw in await asyncio.to_thread(self._s.log.read, _stream(lease), after):
                        yield recall(LeaseEvent, raw)
                        after = number
                while watcher.passing and not watcher.durable:
                    yield LeaseEvent(0, self._s.clock.now_ms(), watcher.passing.popleft())
                await watcher.news.wait()
            raise fail("E1803", "Too many watch this lease.")
        finally:
            if watcher in watchers:
                watchers.remove(watcher)
            if not watchers:
                self._watchers.pop(lease, None)

    def forget(self, lease: bytes) -> None:
        """The lease is over for good; its stream stays in the log."""
        self._last.pop(lease, None)


def _stream(lease: bytes) -> str:
    return f"provider-lease/{lease.hex()}"
