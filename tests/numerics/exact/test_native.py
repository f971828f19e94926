from __future__ import annotations

from fallow.numerics.exact import native


def test_it_says_why_it_is_not_there() -> None:
    assert native.available() or native.reason()
