from __future__ import annotations

import pytest

from fallow.sim.world import GENESIS_MS, Violation, World


def test_things_happen_in_the_order_of_their_moments_and_then_of_asking() -> None:
    world, seen = World(1), list[str]()
    world.after(20, lambda: seen.append("late"))
    world.after(10, lambda: seen.append("first"))
    world.after(10, lambda: seen.append("second"))
    assert not world.run(lambda: False, 1_000)
    assert seen == ["first", "second", "late"]
    assert world.now_ms == GENESIS_MS + 20


def test_a_run_ends_at_its_limit_or_when_it_is_over() -> None:
    world, ticks = World(1), list[int]()

    def tick() -> None:
        ticks.append(world.elapsed_ms)
        world.after(100, tick)

    tick()
    assert not world.run(lambda: False, 1_000)
    assert ticks[-1] == 1_000
    assert world.run(lambda: len(ticks) == 15, 10_000)


def test_checks_run_after_every_step() -> None:
    world, seen = World(1), list[int]()
    world.checks.append(lambda: seen.append(world.elapsed_ms))
    world.after(1, lambda: None)
    world.after(2, lambda: None)
    world.run(lambda: False, 10)
    assert seen == [1, 2]


def test_a_world_that_never_rests_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.sim.world.MAX_STEPS", 50)
    world = World(1)

    def again() -> None:
        world.after(0, again)

    again()
    with pytest.raises(Violation):
        world.run(lambda: False, 1_000)


def test_a_fault_that_is_off_throws_no_dice() -> None:
    one, other = World(3), World(3)
    assert not one.chance(0)
    assert one.rng.random() == other.rng.random()


def test_the_trace_is_all_that_was_noted_and_when() -> None:
    worlds = [World(1, keep_lines=True) for _ in range(3)]
    for world, delay in zip(worlds, (5, 5, 6), strict=True):
        world.after(delay, lambda world=world: world.note("hello"))
        world.run(lambda: False, 10)
    assert worlds[0].trace == worlds[1].trace != worlds[2].trace
    assert worlds[0].lines == ["       5 hello"]
