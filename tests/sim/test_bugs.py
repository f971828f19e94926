"""The simulator can fail: each planted bug is noticed within a few seeds."""

from __future__ import annotations

import pytest

from fallow.sim.bugs import BUGS, planted
from fallow.sim.run import replay_command, simulate

WITHIN = 100
"""Seeds in which a bug must be noticed. What takes longer is not worth planting."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_noticed(name: str) -> None:
    assert any(simulate(seed, name).failure for seed in range(WITHIN)), f"nobody noticed: {replay_command(0, name)}"


def test_the_node_is_whole_again_afterwards() -> None:
    for name, bug in BUGS.items():
        patches = bug.patches
        before = [vars(place)[attribute] for place, attribute, _, _ in patches]
        with planted(name):
            pass
        assert [vars(place)[attribute] for place, attribute, _, _ in patches] == before


def test_no_such_bug() -> None:
    with pytest.raises(KeyError), planted("none of these"):
        pass
