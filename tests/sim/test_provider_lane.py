from __future__ import annotations

from tests.sim.worlds import Played, batch, lane, play

from fallow.sim.provider_lane import SimLaneTask
from fallow.wire.messages import Failure, LaneClaimed, Message, OpenLane


def lane_claims(world: Played) -> list[tuple[bytes, int]]:
    return [(p.node, body.first) for p in world.pool.providers for lease in p.state.leases
            for event in p.streams.told(lease) if isinstance(body := event.body, LaneClaimed)]  # fmt: skip


def test_answers_are_claimed_in_batches_each_number_once() -> None:
    world = play(lane(30, verify="none", cancel_ms=25_000))
    found = lane_claims(world)
    assert len(found) == len(set(found))
    units = sum(receipt.units for receipt in world.pool.referee.receipts.values())
    assert units == 30
    assert len(world.pool.referee.receipts) <= 30


def test_there_is_no_lane_without_a_lease() -> None:
    provider, got = play(batch(1)).pool.providers[0], list[Message]()
    provider.take(b"?" * 32, OpenLane(b"l" * 32), got.append)
    provider.take(b"?" * 32, SimLaneTask(b"l" * 32, 1, b"", 0), got.append)
    assert [type(answer) for answer in got] == [Failure, Failure]


def test_no_more_is_answered_than_may_be_owed() -> None:
    """A lane under a cap of a few units stops by itself; the referee sees that nothing beyond the cap is paid."""
    world = play(lane(40, verify="none", cancel_ms=40_000))
    paid = sum(receipt.paid_ucr for receipt in world.pool.referee.receipts.values())
    assert 0 < paid <= 60
