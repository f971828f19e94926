"""Softmax and its gradient."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, even, rows, ulp

from fallow.numerics.exact import softmax as s

INF, NAN = float("inf"), float("nan")


@given(st.integers(1, 40), st.integers(0, 10_000), st.floats(0.01, 4))
def test_near_the_truth(keys: int, seed: int, scale: float) -> None:
    x = even(-20, 20, 3 * keys, seed).view(3, keys)
    error = s.softmax(x, scale=scale).double() - (x.double() * scale).softmax(-1)
    assert error.abs().max() <= 2.0**-24 + keys * 2.0**-33


@given(rows(200.0, 12), st.sampled_from([1.0, 0.125, 0.1, 3.0]))
def test_each_weight_is_within_its_bound(row: list[float], scale: float) -> None:
    row = torch.tensor(row).tolist()
    found = s.softmax(torch.tensor(row), scale=scale).tolist()
    weights = [mpmath.exp(mpmath.mpf(x) * mpmath.mpf(scale)) for x in row]
    for p, weight in zip(found, weights, strict=True):
        exact = weight / mpmath.fsum(weights)
        assert abs(p - exact) <= exact * (3 * 2.0**-24 + len(row) * 2.0**-33 + 2.0**-40) + 2.0**-149


@given(rows(2.0**100, 9), st.sampled_from([1.0, 0.125, 3.0]))
def test_the_gradient_is_within_its_bound(row: list[float], scale: float) -> None:
    dp = torch.tensor(row)
    p = s.softmax(torch.arange(len(row)) * 0.7 % 2)
    terms = [mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(p.tolist(), dp.tolist(), strict=True)]
    middle, reach = mpmath.fsum(terms), max(abs(term) for term in terms)
    for weight, d, dx in zip(p.tolist(), dp.tolist(), s.softmax_backward(p, dp, scale=scale).tolist(), strict=True):
        exact = weight * (d - middle) * mpmath.mpf(scale)
        slack = scale * weight * (len(row) * reach * 2.0**-36 + abs(d) * 2.0**-50)
        assert abs(dx - exact) <= 0.501 * ulp(exact) + slack


@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 4), st.integers(0, 1000))
def test_what_may_not_be_seen_does_not_matter(queries: int, past: int, window: int, seed: int) -> None:
    keys = queries + past
    span = s.causal(queries, past, window=window)
    x = even(-9, 9, 2 * queries * keys, seed).view(2, queries, keys)
    p = s.softmax(x, span)
    for query in range(queries):
        first, last = max(0, past + query + 1 - window) if window else 0, past + query + 1
        assert torch.equal(bits(p[:, query, first:last]), bits(s.softmax(x[:, query, first:last])))
        assert not p[:, query, :first].any()
        assert not p[:, query, last:].any()
    hidden = torch.where(span.visible(keys), x, torch.nan)
    assert torch.equal(bits(s.softmax(hidden, span)), bits(p))


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([0.0, -INF, 0.0], [0.5, 0.0, 0.5]),
        ([3e38, -3e38, 0.0], [1.0, 0.0, 0.0]),
        ([NAN, 1.0], [NAN, NAN]),
        ([INF, 1.0], [NAN, NAN]),
        ([-INF, -INF], [NAN, NAN]),
    ],
)
def test_edges(row: list[float], wanted: list[float]) -> None:
    assert torch.equal(bits(s.softmax(torch.tensor(row))), bits(torch.tensor(wanted)))


def test_a_row_that_sees_nothing_is_zero() -> None:
    nothing = s.Span(torch.tensor([2, 0]), torch.tensor([2, 1]))
    assert s.softmax(torch.ones(2, 3), nothing).tolist() == [[0, 0, 0], [1, 0, 0]]


@given(st.integers(1, 40), st.integers(0, 10_000), st.floats(0.01, 4))
def test_the_gradient_is_autograd_s(keys: int, seed: int, scale: float) -> None:
    x, dp = even(-5, 5, 3 * keys, seed).view(3, keys), even(-5, 5, 3 * keys, seed + 1).view(3, keys)
    p = s.softmax(x, scale=scale)
    wide = p.double()
    truth = scale * wide * (dp.double() - (wide * dp.double()).sum(-1, keepdim=True))
    error = s.softmax_backward(p, dp, scale=scale).double() - truth
    assert (error.abs() <= truth.abs() * 2.0**-23 + scale * keys * 5 * 2.0**-35).all()


def test_no_gradient_where_there_is_no_weight() -> None:
    dx = s.softmax_backward(torch.tensor([0.25, 0.0, 0.75]), torch.tensor([1.0, NAN, -1.0]))
    assert dx.tolist() == [0.375, 0.0, -0.375]
    assert torch.signbit(dx).tolist() == [False, False, True]


@given(st.integers(1, 60), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(keys: int, seed: int, random) -> None:
    x, dp = even(-9, 9, keys, seed), even(-9, 9, keys, seed + 1)
    order = list(range(keys))
    random.shuffle(order)
    p, mixed = s.softmax(x), s.softmax(x[order])
    assert torch.equal(bits(p[order]), bits(mixed))
    assert torch.equal(bits(s.softmax_backward(p, dp)[order]), bits(s.softmax_backward(mixed, dp[order])))


def test_no_more_weights_than_fit() -> None:
    with pytest.raises(ValueError, match="2\\^21"):
        s.softmax(torch.zeros(1).expand((1 << 21) + 1))
