"""Exact matrix products: the rounded result of an exact integer sum, so that no order, blocking or library matters.

Source: docs/spec/exact-arithmetic.md, sections 3.2 to 3.5. Nothing here is differentiable; the layers that are call it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import routes, sums
from fallow.numerics.exact.format import Grid


class Weights:
    """A matrix quantised by rows, kept for all the products that it is in: `product(x, weights)` forward and
    `product_folded(dy, weights)` back. `w`: (n, k) float32. Make it anew when the matrix changes."""

    def __init__(self, w: Tensor) -> None:
        self.grid = formats.quantise(w)

    @property
    def step(self) -> Tensor:
        """(n,) float32: what a gradient is folded with before `product_folded`."""
        return self.grid.step


def product(a: Grid, b: Grid | Weights) -> Tensor:
    """A B^T, (..., m, n) float32, of a: (..., m, k) and b: (..., n, k), both quantised along k (section 3.2)."""
    b = b.grid if isinstance(b, Weights) else b
    total = _sum(a.q, b.q.mT)
    return (total * a.step.double()[..., :, None] * b.step.double()[..., None, :]).float()


def product_folded(a: Grid, b: Grid | Weights) -> Tensor:
    """A B, (..., m, n) float32, of a: (..., m, k), into which b's steps were folded, and b: (..., k, n), quantised one
    vector per k: only its integers are used (section 3.3)."""
    b = b.grid if isinstance(b, Weights) else b
    return (_sum(a.q, b.q) * a.step.double()[..., :, None]).float()


def add_gradient(total: Tensor, dy: Tensor, x: Grid) -> None:
    """Add the weight gradients of sequences to `total`, (n, k) int64, in place, each sequence's on the gradient grid by
    itself (section 3.4). `dy`: (sequences, tokens, n) float32; `x`: (sequences, tokens, k), the forward pass's."""
    for one, q, step in zip(dy, x.q, x.step, strict=True):
        a = formats.quantise_columns(one, step)
        formats.accumulate(total, formats.onto_gradient_grid(_sum(a.q, q) * a.step.double()[:, None]))


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """The exact integer product of a: (..., m, k) and b: (..., k, n) int16, as float64; zero is +0."""
    if a.dtype != torch.int16 or b.dtype != torch.int16 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"no product of {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
    if a.shape[-1] > sums.MAX_TERMS:
        raise ValueError(f"{a.shape[-1]} terms: more than {sums.MAX_TERMS}")
    return sums.int8(a, b) if routes.chosen(a.device) is routes.Route.INT8 else sums.fp64(a, b)
