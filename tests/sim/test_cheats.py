"""What each cheat gets when everything is checked: nothing for wrong work, and a ban for what can be proved."""

from __future__ import annotations

import pytest
from tests.sim.worlds import HONEST, Played, batch, lane, liar, play, train

from fallow.sim.cheats import GALLERY
from fallow.sim.faults import ProviderPlan
from fallow.sim.work import honest_output

LIARS = ("wrong", "lazy", "replay", "smart")


def all_right(world: Played) -> bool:
    paid = [r for r in world.pool.referee.receipts.values() if r.spec is not None]
    return all(receipt.output == honest_output(receipt.spec) for receipt in paid if receipt.spec is not None)


@pytest.mark.parametrize("way", GALLERY)
def test_a_cheat_does_not_keep_a_batch_from_being_right(way: str) -> None:
    world = play(batch(12), providers=[*HONEST, liar(way)])
    assert world.code() == ""
    assert all_right(world)


@pytest.mark.parametrize("way", LIARS)
def test_a_liar_is_caught_and_slashed(way: str) -> None:
    world = play(batch(12), providers=[*HONEST, liar(way)])
    assert world.caught("cheat")
    assert world.slashed_ucr("cheat") > 0


@pytest.mark.parametrize("way", ["wrong", "withhold", "silent", "vanish"])
def test_training_survives_a_cheat(way: str) -> None:
    world = play(train(), providers=[*HONEST, liar(way)])
    assert world.code() == ""
    assert all_right(world)
    if way in ("wrong", "vanish"):
        assert world.earned_ucr("cheat") == 0


@pytest.mark.parametrize("way", ["wrong", "smart"])
def test_a_liar_on_a_lane_is_caught_by_doing_it_again(way: str) -> None:
    world = play(lane(40, cancel_ms=60_000), providers=[*HONEST, liar(way)])
    assert world.caught("cheat")
    assert world.slashed_ucr("cheat") > 0


@pytest.mark.parametrize("way", ["overmeter", "invent", "forge", "copycat", "equivocate"])
def test_what_was_not_earned_is_not_paid(way: str) -> None:
    """The referee counts what every lease has earned; here is that it had something to count."""
    world = play(batch(12), lane(20), providers=[*HONEST, liar(way)])
    earned_ucr = sum(
        r.paid_ucr for r in world.pool.referee.receipts.values() if r.terms.provider == world.account("cheat")
    )
    assert world.earned_ucr("cheat") <= earned_ucr
    if way == "overmeter":
        assert earned_ucr == 0


def test_many_nodes_of_one_account_are_one_voice() -> None:
    nodes = [ProviderPlan(f"sybil{n}", "wrong", "sybil", "sybil", 100) for n in range(3)]
    world = play(batch(12), providers=[*HONEST, *nodes])
    assert world.code() == ""
    assert all_right(world)
    assert world.caught("sybil0")


def test_two_who_tell_one_lie_do_not_outvote_a_quorum_of_three() -> None:
    pair = [ProviderPlan(f"pair{n}", "wrong", f"pair{n}", "pair", 100) for n in range(2)]
    world = play(batch(12, verify="audit:probation=1,rate=1,quorum=3", workers=4), providers=[*HONEST, *pair])
    assert all_right(world)
    assert not any(world.caught(p.name) for p in HONEST)
