"""What each stranger gets: nothing, from anybody, while the honest job goes on; and that it would say so if it did."""

from __future__ import annotations

import msgspec
import pytest

from fallow.sim.gallery import draw, gains, judge
from fallow.sim.run import simulate
from fallow.sim.strangers import STRANGERS, Stranger
from fallow.sim.town import Town


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_gets_nothing(name: str) -> None:
    outcome = simulate(1, plan=draw(1, name), judge=judge)
    assert not outcome.failure, outcome.failure
    (stranger,) = outcome.town.strangers
    assert stranger.rounds > 2
    assert gains(outcome.town) == {name: 0}


def test_what_a_stranger_wins_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that lets everybody in."""
    made = Town.__init__

    def open_to_all(self: Town, *args: object) -> None:
        made(self, *args)  # pyright: ignore[reportArgumentType]
        self.ledger.terms = msgspec.structs.replace(self.ledger.terms, invited_only=False)

    monkeypatch.setattr(Town, "__init__", open_to_all)
    assert "opened an account without a ticket" in simulate(1, plan=draw(1, "accounts"), judge=judge).failure


def test_keys_are_free_and_differ() -> None:
    outcome = simulate(1, plan=draw(1, "quotes"), judge=judge)
    (stranger,) = outcome.town.strangers
    assert isinstance(stranger, Stranger)
    assert len({stranger.another(number).account for number in range(5)}) == 5
