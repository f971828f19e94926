"""Spin."""

from __future__ import annotations

import pytest

from fallow.errors import FallowError
from fallow.kinds.registry import kind_named


def test_a_spin_is_metered_by_the_million() -> None:
    kind = kind_named("spin")
    assert [kind.units(kind.read(line, {})) for line in ("1", "999999", "3000000")] == [1, 1, 3]
    assert kind.shown(b"\x0f") == "0f"


@pytest.mark.parametrize("line", ["fast", "-1", "", "²", "1" + "0" * 13])
def test_what_is_no_number_is_no_spin(line: str) -> None:
    kind = kind_named("spin")
    with pytest.raises(FallowError) as refused:
        kind.read(line, {})
    assert refused.value.code == "E2001"
    with pytest.raises(FallowError) as malformed:
        kind.units(line.encode())
    assert malformed.value.code == "E1707"
