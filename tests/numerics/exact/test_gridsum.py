"""Sums: order-free, within their bound, and safe at the edges."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, spread

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import gridsum as g

TERMS = st.lists(st.floats(-1e30, 1e30, allow_subnormal=True), min_size=1, max_size=40)


@given(TERMS, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bits(terms: list[float], random) -> None:
    mixed = list(terms)
    random.shuffle(mixed)
    one, other = (g.gridsum(torch.tensor(order, dtype=torch.float64)) for order in (terms, mixed))
    assert torch.equal(bits(one), bits(other))


@given(TERMS)
def test_within_half_a_grid_step_a_term(terms: list[float]) -> None:
    error = abs(Fraction(g.gridsum(torch.tensor(terms, dtype=torch.float64)).item()) - sum(map(Fraction, terms)))
    largest = max(map(abs, terms))
    # below 2^-900 nothing is left of a term
    assert error <= len(terms) * (Fraction(largest) * Fraction(2) ** -36 + Fraction(2) ** -900)


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        ([], 0.0),
        ([0.0, -0.0], 0.0),
        ([-0.0, -0.0], 0.0),
        ([1.0, float("nan")], float("nan")),
        ([1.0, float("inf"), -float("inf")], float("nan")),
        ([2.0**900, 1.0], float("nan")),
        ([2.0**899, -(2.0**890)], 2.0**899 - 2.0**890),
        ([2.0**-901, 2.0**-901], 0.0),
        ([2.0**-900, 2.0**-900], 2.0**-899),
        ([1.0, -1.0, 2.0**-36], 0.0),
        ([1.0, -1.0, 2.0**-35], 2.0**-35),
        ([1.0, -1.0, 3 * 2.0**-36], 2.0**-34),
    ],
)
def test_edges(terms: list[float], wanted: float) -> None:
    got = g.gridsum(torch.tensor(terms, dtype=torch.float64))
    assert torch.equal(bits(got), bits(torch.tensor(wanted, dtype=torch.float64)))


def test_no_more_terms_than_fit() -> None:
    with pytest.raises(ValueError, match="2\\^17"):
        g.gridsum(torch.zeros(1 << 17 | 1, dtype=torch.float64))
    assert g.gridsum(torch.full((1 << 17,), 1.99, dtype=torch.float64)).item() == pytest.approx(1.99 * 2**17)


def test_the_mean_is_rounded_once() -> None:
    x = spread(-3, 3, 700, 1).view(7, 100).double()
    assert (g.mean64(x) - x.sum(-1) / 100).abs().max() <= 1e-4


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.integers(1, 19))
def test_a_sequence_is_rounded_a_token_at_a_time(terms: list[float], cut: int) -> None:
    wide = torch.tensor(terms, dtype=torch.float64)[:, None]
    bound = g.token_bound(len(terms))
    points = [round(Fraction(max(-bound, min(bound, term))) * 2**40) for term in terms]
    assert g.sequence_gradient(wide).item() == max(-(2**53), min(2**53, sum(points)))


def test_the_longest_sequence_does_not_overflow() -> None:
    terms = torch.full((1 << 17, 1), 1e300, dtype=torch.float64)
    assert g.sequence_gradient(terms).item() == 2**53
    assert g.token_bound(1 << 17) * 2**40 * 2**17 < 2**63
    with pytest.raises(ValueError, match="2\\^17 tokens"):
        g.token_bound((1 << 17) + 1)


def test_nan_poisons_its_own_entry_alone() -> None:
    terms = torch.ones(3, 2, dtype=torch.float64)
    terms[1, 0] = torch.nan
    assert g.sequence_gradient(terms).tolist() == [formats.POISON, 3 << 40]
