"""RMSNorm against float64 autograd, and their weight gradients in any split."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, even, rows, ulp
from torch.nn import functional

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import norms

EPS = 1e-5
WEIGHTS = st.floats(-8.0, 8.0, width=32)


@given(st.integers(1, 70), st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 1e4]))
def test_rms_norm(n: int, seed: int, size: float) -> None:
    x, weight, dy = even(-size, size, 6 * n, seed).view(2, 3, n), even(-2, 2, n, seed + 1), even(-3, 3, 6 * n, seed + 2)
    dy = dy.view(2, 3, n)
    wide, w = x.double().requires_grad_(), weight.double().requires_grad_()
    truth = functional.rms_norm(wide, (n,), w, EPS)
    y, r = norms.rms_norm(x, weight, EPS)
    assert ((y.double() - truth).abs() <= truth.abs() * 2.0**-23.9).all()
    dx, dw = torch.autograd.grad(truth, (wide, w), dy.double())
    reach = (6 * r * n).detach()[..., None]
    error = (norms.rms_norm_backward(dy, x, weight, r).double() - dx).abs()
    assert (error <= dx.abs() * 2.0**-23.9 + reach * 2e-9).all()
    entries = norms.rms_norm_weight_gradient(dy, x, r)
    assert entries.shape == (2, n)
    assert (entries.sum(0).double() * 2.0**-formats.GRADIENT_BITS - dw).abs().max() < 1e-7


def wide_rows(data: st.DataObject) -> tuple[list[float], list[float], list[float]]:
    """A row of any numbers, whose squares eps may drown, and a weight and a gradient as long."""
    row = torch.tensor(data.draw(rows(2.0**60, 40))).tolist()
    weight, dy = (data.draw(st.lists(WEIGHTS, min_size=len(row), max_size=len(row))) for _ in "wd")
    return row, weight, dy


@given(st.data())
def test_rms_norm_is_within_its_bound(data: st.DataObject) -> None:
    row, weight, dy = wide_rows(data)
    n = len(row)
    x, w, d = torch.tensor([row]), torch.tensor(weight), torch.tensor([dy])
    y, r = norms.rms_norm(x, w, EPS)
    scale = 1 / mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in row) / n + EPS)
    for found, v, u in zip(y[0].tolist(), row, weight, strict=True):
        exact = scale * v * u
        assert abs(found - exact) <= (0.501 + n * 2.0**-13) * ulp(exact)
    g = [mpmath.mpf(a) * b for a, b in zip(dy, weight, strict=True)]
    shared = mpmath.fsum(a * v for a, v in zip(g, row, strict=True)) * scale**2 / n
    slack = (2 + 2 * n**0.5) * n * 2.0**-36 * scale * max(abs(a) for a in g)
    for found, a, v in zip(norms.rms_norm_backward(d, x, w, r)[0].tolist(), g, row, strict=True):
        exact = (a - v * shared) * scale
        assert abs(found - exact) <= 0.501 * ulp(exact) + slack


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    x, weight, dy = even(-3, 3, 800, 1).view(8, 100), even(0, 2, 100, 2), even(-1, 1, 800, 4)
    dy = dy.view(8, 100)
    y, r = norms.rms_norm(x, weight, EPS)
    for row in range(8):
        part = slice(row, row + 1)
        assert torch.equal(bits(y[part]), bits(norms.rms_norm(x[part], weight, EPS)[0]))
    whole = norms.rms_norm_backward(dy, x, weight, r)
    assert torch.equal(bits(whole[3:5]), bits(norms.rms_norm_backward(dy[3:5], x[3:5], weight, r[3:5])))


def test_the_order_of_the_width_does_not_matter() -> None:
    x, weight, order = even(-3, 3, 100, 1), even(0, 2, 100, 2), torch.randperm(100)
    assert torch.equal(norms.rms_norm(x, weight, EPS)[0][order], norms.rms_norm(x[order], weight[order], EPS)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_number_spoils_its_row_alone(bad: float) -> None:
    x = torch.ones(2, 4)
    x[0, 1] = bad
    y = norms.rms_norm(x, torch.ones(4), EPS)[0]
    assert torch.isnan(y[0]).all()
    assert torch.isfinite(y[1]).all()


def test_zeros_stay_zeros() -> None:
    y, r = norms.rms_norm(torch.zeros(1, 3), torch.ones(3), EPS)
    assert y.tolist() == [[0, 0, 0]]
    assert r.item() == pytest.approx(EPS**-0.5)
