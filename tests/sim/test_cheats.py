"""What each cheat gets when everything is checked: nothing for wrong work, and a ban for what can be proved."""

from __future__ import annotations

import pytest
from tests.sim.worlds import HONEST, Played, batch, exact, lane, liar, play, train

from fallow.kinds.chain import catches
from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.sim.cheats import GALLERY
from fallow.sim.plan import ProviderPlan
from fallow.sim.work import honest_output
from fallow.wire import codec

LIARS = ("wrong", "lazy", "replay", "smart")


def all_right(world: Played) -> bool:
    paid = [r for r in world.town.referee.receipts.values() if r.spec is not None]
    return all(receipt.output == honest_output(receipt.spec) for receipt in paid if receipt.spec is not None)


def rounds_of(world: Played, name: str) -> int:
    """How many rounds of the job somebody claimed."""
    specs = [world.town.referee.specs[task] for who, task in world.town.claimed if who == world.account(name)]
    return sum(isinstance(codec.decode(TrainParams, spec.params), TrainRound) for spec in specs)


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
        assert world.paid_ucr("cheat") == 0


@pytest.mark.parametrize("way", GALLERY)
def test_exact_training_ends_right_whoever_takes_part(way: str) -> None:
    """Every link of every claim is done again, so nothing false is left."""
    world = play(exact(verify="audit:links=64"), providers=[*HONEST, liar(way)])
    assert world.code() == ""
    assert all_right(world)


@pytest.mark.parametrize("way", ["skip", "flip"])
def test_a_broken_chain_that_is_looked_at_costs_the_stake(way: str) -> None:
    # a seed in which the cheat is not the spare one of three
    world = play(exact(verify="audit:links=64"), providers=[*HONEST, liar(way)], seed=3)
    assert world.caught("cheat")
    assert world.slashed_ucr("cheat") > 0
    assert all_right(world)  # it may have been paid for an honest audit of somebody else


def test_who_raises_false_alarms_is_banned_and_the_accused_is_paid() -> None:
    # dear, so that it is the one outside, which is asked to check the others
    world = play(exact(rounds=6, workers=4), providers=[*HONEST, liar("alarm", price_ucr=2_000)])
    assert world.code() == ""
    assert world.caught("cheat")
    assert not any(world.caught(plan.name) for plan in HONEST)
    assert all_right(world)


@pytest.mark.parametrize(("way", "broken"), [("skip", 2), ("flip", 1)])
def test_cheats_are_caught_as_often_as_the_economics_page_says(way: str, broken: int) -> None:
    """Ten steps of two links; one claim of the cheat in each of many worlds. Within four standard deviations."""
    links, drawn, claims, caught = 20, 4, 0, 0
    plan = exact(rounds=1, workers=4, verify=f"audit:links={drawn}")
    for seed in range(40):
        world = play(plan, providers=[*HONEST[:3], liar(way)], seed=seed)
        if rounds_of(world, "cheat") == 1:
            claims, caught = claims + 1, caught + world.caught("cheat")
    expected = catches(links, broken, drawn)
    deviation = float(claims * expected * (1 - expected)) ** 0.5
    assert claims > 15
    assert abs(caught - float(claims * expected)) <= 4 * deviation


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
        r.paid_ucr for r in world.town.referee.receipts.values() if r.terms.provider == world.account("cheat")
    )
    assert world.paid_ucr("cheat") <= earned_ucr
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
