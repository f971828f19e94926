from __future__ import annotations

import msgspec
import pytest
from tests.sim.worlds import HONEST, Played, lane, liar, play

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, transition
from fallow.sim import steward
from fallow.sim.faults import Happening
from fallow.sim.steward import STREAM
from fallow.wire import codec
from fallow.wire.messages import LaneClaimed


@pytest.fixture(autouse=True)
def whole_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log from its first event on: these tests play it again from nothing."""
    monkeypatch.setattr(steward, "COMPACT_EVERY", 1 << 30)


def lane_events(world: Played) -> list[t.LaneAnswered]:
    events = [codec.decode(t.AnyStewardEvent, raw) for _, raw in world.pool.steward.log.read(STREAM)]
    return [event for event in events if isinstance(event, t.LaneAnswered)]


def test_seed_402_a_lane_claim_that_is_told_again_after_it_was_paid_is_not_paid_again() -> None:
    """A provider repeated its signed claim under a new event number once the first was final and forgotten."""
    world = play(lane(20, verify="none"), providers=[*HONEST, liar("invent")])
    claim = lane_events(world)[-1]
    state, paid = State(), 0
    for _, raw in world.pool.steward.log.read(STREAM):
        event = codec.decode(t.AnyStewardEvent, raw)
        again = [event]
        if isinstance(event, t.LaneAnswered) and event.claim_hash == claim.claim_hash:
            again += [msgspec.structs.replace(event, sequence=event.sequence + n) for n in (1, 2)]
        for one in again:
            effects = transition(state, one)
            paid += sum(isinstance(e, t.KeepReceipt) and e.claim_hash == claim.claim_hash for e in effects)
    assert paid == 1


def test_a_second_root_over_the_same_answers_is_not_paid() -> None:
    world = play(lane(20, verify="none"))
    claim = lane_events(world)[0]
    state, receipts = State(), 0
    for _, raw in world.pool.steward.log.read(STREAM):
        event = codec.decode(t.AnyStewardEvent, raw)
        transition(state, event)
        if isinstance(event, t.LaneAnswered) and event.claim_hash == claim.claim_hash:
            other = msgspec.structs.replace(event, sequence=event.sequence + 1, claim_hash=b"o" * 32)
            receipts += sum(isinstance(e, t.KeepReceipt) for e in transition(state, other))
    assert receipts == 0


def test_numbers_are_never_used_twice_whenever_the_steward_dies() -> None:
    happenings = [Happening(at_ms, "crash", ("steward",), 100, 2) for at_ms in range(4_000, 16_000, 1_500)]
    world = play(lane(20, verify="none"), happenings=happenings)
    numbers: dict[bytes, list[int]] = {}
    for provider in world.pool.providers:
        for lease in provider.state.leases:
            claims = [event.body for event in provider.streams.told(lease) if isinstance(event.body, LaneClaimed)]
            numbers[lease] = [claim.first for claim in claims]
    assert world.pool.steward.deaths > 3
    assert sum(map(len, numbers.values())) > 1
    assert all(firsts == sorted(set(firsts)) for firsts in numbers.values())


def test_an_audit_of_an_honest_lane_finds_nothing() -> None:
    world = play(lane(30))
    assert not world.pool.referee.caught
    assert any(receipt.check == "checked" for receipt in world.pool.referee.receipts.values())
