"""What checks are worth, against counting and against draws."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
from benchmarks.check_odds import SCHEMES, Scheme, catches_in, table
from blake3 import blake3

from fallow.kinds.chain import catches, percent
from fallow.rules.trust import draw_links

PAGE = Path(__file__).parents[2] / "docs/explanation/economics.md"


@pytest.mark.parametrize("links", [1, 2, 5, 7])
def test_it_is_what_counting_gives(links: int) -> None:
    for broken in range(links + 1):
        for drawn in range(links + 1):
            sets = list(combinations(range(links), drawn))
            hits = sum(any(index < broken for index in one) for one in sets)
            assert catches(links, broken, drawn) == Fraction(hits, len(sets))
            assert catches(links, broken, drawn, Fraction(1, 3)) == Fraction(hits, 3 * len(sets))


def test_more_draws_than_links_find_everything() -> None:
    assert catches(3, 1, 64) == 1
    assert catches(3, 0, 64) == 0


def test_rounds_add_up() -> None:
    assert catches_in(1, Fraction(1, 5)) == Fraction(1, 5)
    assert catches_in(2, Fraction(1, 5)) == Fraction(9, 25)


@pytest.mark.parametrize("part", [Fraction(1, 100), Fraction(1, 10), Fraction(1, 2), Fraction(1)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_leaving_work_out_never_pays_even_without_a_stake(scheme: Scheme, part: Fraction) -> None:
    """What is saved is at most that part of the pay; what is risked is the whole of it."""
    assert scheme.catches_skipping(part) >= part


@pytest.mark.parametrize("drawn", [1, 2, 7])
@pytest.mark.parametrize("broken", [1, 20])
def test_draws_catch_as_often_as_the_page_says(drawn: int, broken: int) -> None:
    """4,000 draws lie within four standard deviations of the formula."""
    links, tries = 200, 4_000
    expected = catches(links, broken, drawn)
    seeds = (blake3(f"{n} {drawn} {broken}".encode()).digest() for n in range(tries))
    hits = sum(any(index < broken for index in draw_links(seed, links, drawn)) for seed in seeds)
    deviation = float(tries * expected * (1 - expected)) ** 0.5
    assert abs(hits - float(tries * expected)) <= 4 * deviation


@pytest.mark.parametrize("value", [Fraction(1, 3), Fraction(9_999, 10_000), Fraction(1), Fraction(0)])
def test_percentages_do_not_promise_too_much(value: Fraction) -> None:
    assert percent(value) == {
        Fraction(1, 3): "33.3 %", Fraction(9_999, 10_000): "> 99.9 %", Fraction(1): "100.0 %", Fraction(0): "0.0 %"
    }[value]  # fmt: skip


def test_the_page_prints_this_table() -> None:
    assert table() in PAGE.read_text("utf-8"), "python benchmarks/check_odds.py"
