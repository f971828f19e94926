"""Lanes of tasks of one unit each."""

from __future__ import annotations

from fallow.kinds.lane import Asked, OneUnit


def test_each_answer_is_one_unit() -> None:
    side = OneUnit("a:b")
    assert side.program == "a:b"
    assert side.fits(Asked(b"x"), b"anything", 1)
    assert not side.fits(Asked(b"x"), b"anything", 2)
    assert not side.cut_short(b"anything")
    assert side.resumed(b"x", "text", 3) == b"x"
