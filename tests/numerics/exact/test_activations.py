"""The gated activation and its gradients against float64 autograd, and at the edges."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import ANY_BITS, bits, even, of_bits
from torch.nn import functional

from fallow.numerics.exact import activations as a

INF, NAN = float("inf"), float("nan")


@given(words=ANY_BITS)
def test_any_bits(words: list[int]) -> None:
    x = of_bits(words)
    y, wide = a.silu_mul(x, torch.ones_like(x)), x.double()
    near = x.abs() <= 1e4
    truth = functional.silu(wide[near])
    assert ((y[near].double() - truth).abs() <= truth.abs() * 2.0**-23.99 + 2.0**-149).all()
    far = torch.isfinite(x) & ~near
    assert torch.equal(y[far], x[far].clamp(min=0))
    assert torch.isnan(y[torch.isnan(x)]).all()


@given(words=ANY_BITS, size=st.floats(-(2.0**100), 2.0**100, width=32))
def test_gradients_of_any_bits(words: list[int], size: float) -> None:
    x = of_bits(words)
    near = x[torch.isfinite(x) & (x.abs() <= 1e4)]
    wide = near.double().requires_grad_()
    (slope,) = torch.autograd.grad(functional.silu(wide).sum(), wide)
    found = a.silu_mul_backward(torch.full_like(near, size), near, torch.ones_like(near))[0]
    error = (found.double() - slope * size).abs()
    assert (error <= (slope * size).abs() * 2.0**-23.99 + abs(size) * 2.0**-40 + 2.0**-149).all()
    ones = torch.ones_like(x)
    assert torch.isnan(a.silu_mul_backward(ones, x, ones)[0][torch.isnan(x)]).all()


def test_edges() -> None:
    x, ones = torch.tensor([0.0, -0.0, INF, -INF, 3e38, -3e38, NAN]), torch.ones(7)
    wanted = torch.tensor([0.0, -0.0, INF, -0.0, 3e38, -0.0, NAN])
    assert torch.equal(bits(a.silu_mul(x, ones)), bits(wanted))
    d_gate = a.silu_mul_backward(ones, x, ones)[0]
    assert d_gate.tolist()[2:6] == [1.0, 0.0, 1.0, 0.0]
    assert torch.isnan(d_gate[6])


def test_the_gated_product_is_rounded_once() -> None:
    gate, up, dy = (even(-8, 8, 2000, seed) for seed in (6, 7, 8))
    g, u = gate.double().requires_grad_(), up.double().requires_grad_()
    y = functional.silu(g) * u
    assert ((a.silu_mul(gate, up).double() - y).abs() <= y.abs() * 2.0**-23.99 + 2.0**-149).all()
    truths = torch.autograd.grad(y, (g, u), dy.double())
    for got, truth in zip(a.silu_mul_backward(dy, gate, up), truths, strict=True):
        assert ((got.double() - truth).abs() <= truth.abs() * 2.0**-23.99 + 2.0**-40).all()
