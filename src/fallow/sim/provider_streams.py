"""The provider's durable event streams in the simulator, one for each lease, and the polls that wait at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fallow.sim.network import Reply
from fallow.wire import codec
from fallow.wire.messages import Claimed, LeaseBody, LeaseEvent, Message

if TYPE_CHECKING:
    from fallow.sim.provider import Provider

POLL_HOLD_MS = 4_000


class LeaseEvents(Message, frozen=True):
    """What a WatchLease stream delivered in one go."""

    events: tuple[LeaseEvent, ...]


class LeaseStreams:
    """All streams of one life; the events themselves are on disk."""

    def __init__(self, provider: Provider) -> None:
        self._me = provider
        self._waiters: dict[bytes, list[tuple[int, Reply]]] = {}

    def watch(self, lease: bytes, after: int, reply: Reply) -> None:
        """A poll that is held until there is something to say, as a stream would."""
        held, poll = self._waiters.setdefault(lease, []), (after, reply)
        held.append(poll)
        self._wake(lease)

        def expire() -> None:
            if poll in held:
                held.remove(poll)
                reply(LeaseEvents(()))

        self._me.later(POLL_HOLD_MS, expire)

    def append(self, lease: bytes, sequence: int, at_ms: int, body: LeaseBody) -> None:
        """Append to the durable stream, unless it is there already. Cheats number their own additions."""
        name = f"lease/{lease.hex()}"
        there = len(self._me.log.read(name))
        if self._me.ways.honest and sequence <= there:
            return
        self._me.log.append(name, [codec.encode(LeaseEvent(there + 1, at_ms, body))])
        if isinstance(body, Claimed):
            self._me.shown.append(body)
        self._wake(lease)

    def told(self, lease: bytes, after: int = 0) -> list[LeaseEvent]:
        """The durable events of a lease after a number."""
        return [codec.decode(LeaseEvent, raw) for _, raw in self._me.log.read(f"lease/{lease.hex()}", after)]

    def _wake(self, lease: bytes) -> None:
        for poll in list(self._waiters.get(lease, [])):
            after, reply = poll
            news = self.told(lease, after)
            if news:
                self._waiters[lease].remove(poll)
                reply(LeaseEvents(tuple(news)))
