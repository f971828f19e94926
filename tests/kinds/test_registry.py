"""Unknown kinds are refused by name, wherever a name comes in."""

from __future__ import annotations

import pytest

from fallow.errors import FallowError
from fallow.kinds.registry import KINDS, kind_named, lane_side


def test_every_kind_is_found_by_its_own_name() -> None:
    assert {name: kind.name for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert all(kind_named(name) is kind for name, kind in KINDS.items())


def test_an_unknown_kind_is_refused_by_name() -> None:
    for look in (kind_named, lane_side):
        with pytest.raises(FallowError) as refused:
            look("render")
        assert refused.value.code == "E2001"
        assert "'render'" in refused.value.what


def test_a_kind_without_lanes_is_refused_as_one() -> None:
    with pytest.raises(FallowError, match="train has no lanes"):
        lane_side("train")
