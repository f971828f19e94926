from __future__ import annotations

from tests.sim.worlds import batch, play

from fallow.sim.network import Network
from fallow.sim.provider_streams import LeaseEvents
from fallow.wire.messages import LeaseLeaving, Message, WatchLease

LEASE = b"l" * 32


def test_events_are_numbered_once_and_kept() -> None:
    provider = play(batch(1)).pool.providers[0]
    for sequence in (1, 2, 2, 1):
        provider.streams.append(LEASE, sequence, 5, LeaseLeaving(f"number {sequence}"))
    assert [event.sequence for event in provider.streams.told(LEASE)] == [1, 2]
    assert [event.sequence for event in provider.streams.told(LEASE, after=1)] == [2]
    provider.kill(1)
    provider.start()
    assert [event.sequence for event in provider.streams.told(LEASE)] == [1, 2]


def test_a_poll_waits_until_there_is_something_new() -> None:
    pool = play(batch(1)).pool
    provider, got = pool.providers[0], list[Message]()
    assert isinstance(pool.network, Network)
    provider.take(b"?" * 32, WatchLease(LEASE, 0), got.append)
    assert not got
    provider.streams.append(LEASE, 1, 5, LeaseLeaving("bye"))
    (answer,) = got
    assert isinstance(answer, LeaseEvents)
    assert [event.body for event in answer.events] == [LeaseLeaving("bye")]
    provider.take(b"?" * 32, WatchLease(LEASE, 1), got.append)
    pool.world.run(lambda: len(got) == 2, 10_000_000)
    assert got[1] == LeaseEvents(())
