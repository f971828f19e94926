"""Exact matrix products: the rounded result of an exact integer sum, so that no order, blocking or library matters.

Source: docs/spec/exact-arithmetic.md, sections 3.2 to 3.5. Nothing here is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact import bindings, native, routes, sums
from fallow.numerics.exact import format as formats
from fallow.numerics.exact.bindings import Kernels, Panels
from fallow.numerics.exact.format import Grid


class Weights:
    """A matrix quantised by rows, kept for all the products that it is in: `product(x, weights)` forward and
    `product_folded(dy, weights)` back. `w`: (n, k) float32. `update` it when the matrix changes."""

    def __init__(self, w: Tensor) -> None:
        self.shape = w.shape
        self._panels: Panels | None = None
        self._grid: Grid | None = None
        self.update(w)

    def update(self, w: Tensor) -> None:
        """Hold other values of the same shape, in the memory of those before: what was read from these changes too."""
        if w.shape != self.shape or w.dim() != 2:
            raise ValueError(f"not a matrix of {tuple(self.shape)}: {tuple(w.shape)}")
        kernels = formats.compiled(w) if w.numel() > 0 and max(w.shape) <= bindings.MAX_TERMS else None
        if kernels is not None:
            back = self._panels is not None and self._panels.back is not None
            self._panels, self._grid = kernels.weights(w.detach(), self._panels, back=back, cap=native.cap()), None
        else:
            self._panels, self._grid = None, formats.quantise(w)

    @property
    def grid(self) -> Grid:
        """The matrix on its grids: q (n, k), step (n)."""
        if self._grid is None:
            assert self._panels is not None
            self._grid = Grid(self._panels.integers(), self._panels.step)
        return self._grid

    @property
    def step(self) -> Tensor:
        """(n,) float32: what a gradient is folded with before `product_folded`."""
        return self._panels.step if self._panels is not None else self.grid.step

    def panels(self, kernels: Kernels) -> Panels:
        """As the compiled kernels want them. Packed when first asked for, and kept."""
        if self._panels is None:
            q, step = self.grid.q, self.grid.step
            self._panels = Panels(step, kernels.pack(q, native.cap()), None, *q.shape)
        return self._panels

    def back(self, kernels: Kernels) -> tuple[Tensor, int]:
        """The same for the way back, and the columns that it leads to."""
        panels = self.panels(kernels)
        if panels.back is None:
            panels.back = kernels.pack(panels.integers().mT, native.cap())
        return panels.back, panels.k


def linear(x: Tensor, weights: Weights) -> Tensor:
    """`product(quantise(x), weights)`, (..., n) of x: (..., k), in one step: the quicker way for a few rows."""
    kernels = formats.compiled(x)
    if kernels is None or x.numel() == 0 or weights.shape[1] > bindings.MAX_TERMS:
        return product(formats.quantise(x), weights)
    return kernels.linear(x.detach(), weights.panels(kernels), native.cap())


def product(a: Grid, b: Grid | Weights, visible: Tensor | None = None) -> Tensor:
    """A B^T, (..., m, n) float32, of a: (..., m, k) and b: (..., n, k), both quantised along k (section 3.2).
    `visible`: (m) int32, where given: of row i only the first visible[i] entries are computed, the others are +0."""
    step = b.step
    kernels = _compiled(a, b.shape[-1] if isinstance(b, Weights) else b.q.shape[-1])
    if kernels is not None:
        if isinstance(b, Weights):
            panels = b.panels(kernels)
            return _by_weights(kernels, a, step, (panels.forward, panels.n), visible)
        return kernels.product(a.q, a.step, b.q, step, visible=visible, cap=native.cap())
    total = _sum(a.q, (b.grid if isinstance(b, Weights) else b).q.mT)
    out = (total * a.step.double()[..., :, None] * step.double()[..., None, :]).float()
    if visible is not None:
        out.masked_fill_(torch.arange(out.shape[-1], device=out.device) >= visible[:, None], 0.0)
    return out


def product_folded(a: Grid, b: Grid | Weights) -> Tensor:
    """A B, (..., m, n) float32, of a: (..., m, k), into which b's steps were folded, and b: (..., k, n), quantised one
    vector per k: only its integers are used (section 3.3). Stretches of zeros in `a` cost nothing."""
    kernels = _compiled(a, b.shape[-2] if isinstance(b, Weights) else b.q.shape[-2])
    if kernels is not None:
        if isinstance(b, Weights):
            return _by_weights(kernels, a, None, b.back(kernels), None)
        return kernels.product(a.q, a.step, b.q.mT, None, cap=native.cap())
    q = (b.grid if isinstance(b, Weights) else b).q
    return (_sum(a.q, q) * a.step.double()[..., :, None]).float()


def add_gradient(total: Tensor, dy: Tensor, x: Grid) -> None:
    """Add the weight gradients of sequences to `total`, (n, k) int64, in place, each sequence's on the gradient grid by
    itself (section 3.4). `dy`: (sequences, tokens, n) float32; `x`: (sequences, tokens, k), the forward pass's."""
    kernels = routes.compiled(dy.device)
    if kernels is not None and x.q.shape[1] <= bindings.MAX_TERMS:
        kernels.add_gradient(total, dy.detach(), x.q, x.step, native.cap())
        return
    for one, q, step in zip(dy, x.q, x.step, strict=True):
        a = formats.quantise_columns(one, step)
        formats.accumulate(total, formats.onto_gradient_grid(_sum(a.q, q) * a.step.double()[:, None]))


def add_gradient_twice(total: Tensor, dy: Tensor, x: Grid) -> None:
    """The same with dy on two grids (section 3.6), which both add to `total`."""
    folded = dy.detach() * x.step[..., None]
    # what is on a grid stays as it is when it is put there again
    first = formats.quantise_columns(folded).values().mT
    plain = Grid(x.q, torch.ones_like(x.step))
    add_gradient(total, first, plain)
    add_gradient(total, folded.sub_(first), plain)


def _compiled(a: Grid, terms: int) -> Kernels | None:
    """The compiled kernels, if they can do sums of `terms` terms."""
    k = a.q.shape[-1]
    if a.q.dtype != torch.int16 or k != terms:
        raise ValueError(f"no product of {a.q.dtype} {tuple(a.q.shape)} and a matrix of {terms} terms")
    return routes.compiled(a.q.device) if 0 < k <= bindings.MAX_TERMS else None


def _by_weights(
    kernels: Kernels, a: Grid, b_step: Tensor | None, packed: tuple[Tensor, int], visible: Tensor | None
) -> Tensor:
    """All rows of a batch are rows of one product."""
    q, step = a.q, a.step
    if q.dim() > 2 and visible is None:
        q, step = q.reshape(-1, q.shape[-1]), step.reshape(-1)
    out = kernels.product(q, step, None, b_step, packed, visible=visible, cap=native.cap())
    return out.view(*a.q.shape[:-1], packed[1])


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """The exact integer product of a: (..., m, k) and b: (..., k, n) int16, as float64; zero is +0."""
    if a.shape[-1] > sums.MAX_TERMS:
        raise ValueError(f"{a.shape[-1]} terms: more than {sums.MAX_TERMS}")
    return sums.int8(a, b) if routes.chosen(a.device) is routes.Route.INT8 else sums.fp64(a, b)
