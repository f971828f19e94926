"""How long the states of a chain are kept."""

from __future__ import annotations

from fallow.kinds.chain import too_many
from fallow.units import GIB


def test_how_many_rounds_are_kept() -> None:
    assert too_many([1] * 4) == 0
    assert too_many([1] * 6) == 2
    assert too_many([GIB] * 3) == 1
    assert too_many([5 * GIB] * 3) == 1
    assert too_many([5 * GIB] * 2) == 0
    assert too_many([5 * GIB, 1, 1]) == 1
    assert too_many([]) == 0
