"""Unobserved is not dead."""

from __future__ import annotations

from fallow.rules.membership import Presence, Roll

NODE = b"n" * 32


def test_a_node_is_dead_only_after_its_deadline() -> None:
    roll = Roll()
    assert roll.presence(NODE, 0, 100) is Presence.OBSERVED
    assert roll.dead_at_ms(NODE, 100) is None
    assert roll.lose_sight(NODE, 50)
    assert roll.presence(NODE, 149, 100) is Presence.UNOBSERVED
    assert roll.dead_at_ms(NODE, 100) == 150
    assert roll.presence(NODE, 150, 100) is Presence.DEAD


def test_saying_it_again_does_not_move_the_deadline() -> None:
    roll = Roll()
    roll.lose_sight(NODE, 50)
    assert not roll.lose_sight(NODE, 149)
    assert roll.presence(NODE, 150, 100) is Presence.DEAD


def test_coming_back_in_time_is_as_if_never_away() -> None:
    roll = Roll()
    roll.lose_sight(NODE, 50)
    assert roll.see(NODE)
    assert not roll.see(NODE)
    assert roll == Roll()


def test_when_the_observer_was_away_all_deadlines_begin_anew() -> None:
    roll = Roll()
    roll.lose_sight(b"gone" * 8, 0)
    roll.begin_anew([NODE], 1_000)
    assert roll.since == {NODE: 1_000}
