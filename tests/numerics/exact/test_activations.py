"""Activations and their gradients against mpmath and float64 autograd."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import ANY_BITS, Real, bits, even, of_bits, spread, worst
from torch import Tensor
from torch.nn import functional

from fallow.numerics.exact import activations as a

INF, NAN = float("inf"), float("nan")


def gelu(x: Real) -> Real:
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def gelu_tanh(x: Real) -> Real:
    twice = 2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf(0.044715) * x**3)
    return x / (1 + mpmath.exp(-twice))


FORWARD: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Real], Real]]] = {
    "silu": (a.silu, lambda x: x / (1 + mpmath.exp(-x))),
    "gelu": (a.gelu, gelu),
    "gelu_tanh": (a.gelu_tanh, gelu_tanh),
}
BACKWARD: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (a.silu_backward, functional.silu),
    "gelu": (a.gelu_backward, functional.gelu),
    "gelu_tanh": (a.gelu_tanh_backward, lambda x: functional.gelu(x, approximate="tanh")),
    "tanh": (a.tanh_backward, torch.tanh),
    "sigmoid": (a.sigmoid_backward, torch.sigmoid),
}


@pytest.mark.parametrize("name", FORWARD)
def test_within_the_bound(name: str) -> None:
    function, truth = FORWARD[name]
    x = torch.cat([even(-13, 13, 1200, 1), spread(-40, 1, 600, 2)])
    assert worst(function(x), truth, x) <= 0.50001


@given(name=st.sampled_from(sorted(FORWARD)), words=ANY_BITS)
def test_any_bits(name: str, words: list[int]) -> None:
    function, truth = FORWARD[name]
    x = of_bits(words)
    y = function(x)
    # beyond, the truth is x or nothing, and mpmath takes forever over it
    near = x.abs() <= 1e4
    assert worst(y[near], truth, x[near]) <= 0.50001
    far = torch.isfinite(x) & ~near
    assert torch.equal(y[far], x[far].clamp(min=0))
    assert torch.isnan(y[torch.isnan(x)]).all()


@given(name=st.sampled_from(sorted(BACKWARD)), words=ANY_BITS, size=st.floats(-(2.0**100), 2.0**100, width=32))
def test_gradients_of_any_bits(name: str, words: list[int], size: float) -> None:
    backward, forward = BACKWARD[name]
    x = of_bits(words)
    near = x[torch.isfinite(x) & (x.abs() <= 1e4)]
    wide = near.double().requires_grad_()
    (slope,) = torch.autograd.grad(forward(wide).sum(), wide)
    error = (backward(torch.full_like(near, size), near).double() - slope * size).abs()
    assert (error <= (slope * size).abs() * 2.0**-23.99 + abs(size) * 2.0**-40 + 2.0**-149).all()
    assert torch.isnan(backward(torch.ones_like(x), x)[torch.isnan(x)]).all()


@pytest.mark.parametrize("name", FORWARD)
def test_edges(name: str) -> None:
    x = torch.tensor([0.0, -0.0, INF, -INF, 3e38, -3e38, NAN])
    wanted = torch.tensor([0.0, -0.0, INF, -0.0, 3e38, -0.0, NAN])
    assert torch.equal(bits(FORWARD[name][0](x)), bits(wanted))


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_are_autograd_s(name: str) -> None:
    backward, forward = BACKWARD[name]
    x = torch.cat([even(-12, 12, 3000, 3), spread(-30, 1, 500, 4)])
    dy = even(-3, 3, len(x), 5)
    wide = x.double().requires_grad_()
    (truth,) = torch.autograd.grad(forward(wide), wide, dy.double())
    error = (backward(dy, x).double() - truth).abs()
    assert (error <= truth.abs() * 2.0**-23.99 + 2.0**-40).all()


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_at_the_edges(name: str) -> None:
    x, flat = torch.tensor([INF, -INF, 3e38, -3e38, NAN]), name in ("tanh", "sigmoid")
    rising = 0.0 if flat else 1.0
    dx = BACKWARD[name][0](torch.ones(5), x)
    assert dx[:4].tolist() == [rising, 0.0, rising, 0.0]
    assert torch.isnan(dx[4])


def test_the_gated_product_is_rounded_once() -> None:
    gate, up, dy = (even(-8, 8, 2000, seed) for seed in (6, 7, 8))
    g, u = gate.double().requires_grad_(), up.double().requires_grad_()
    y = functional.silu(g) * u
    assert ((a.silu_mul(gate, up).double() - y).abs() <= y.abs() * 2.0**-23.99 + 2.0**-149).all()
    truths = torch.autograd.grad(y, (g, u), dy.double())
    for got, truth in zip(a.silu_mul_backward(dy, gate, up), truths, strict=True):
        assert ((got.double() - truth).abs() <= truth.abs() * 2.0**-23.99 + 2.0**-40).all()
