"""Number formats of exact arithmetic: vectors of integers with one power of two each, and the grid of gradients.

Everything here is elementwise IEEE arithmetic and integer work on the bits of binary32, so it gives the same bits on
every device that torch runs on. Source: docs/spec/exact-arithmetic.md, sections 3.1, 3.3 and 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fallow.numerics.exact import kernels as operators
from fallow.numerics.exact import native, routes
from fallow.numerics.exact.bindings import Kernels
from fallow.numerics.exact.functions import divide

TOP = 8127
"""The largest magnitude on a grid: 63 * 128 + 63, so that every integer on it is two int8 digits in [-64, 63]."""
GRADIENT_BITS = 40
"""The gradient grid's step is 2^-40."""
GRADIENT_LIMIT = 2.0**13
"""No entry of one sequence's gradient is larger: beyond, it is clamped."""
MAX_ENTRIES = (1 << 10) - 1
"""As many gradients may be added: |sum| < 2^63 whatever the order, so POISON never comes about by adding."""
MAX_SEQUENCES = MAX_ENTRIES // 3
"""As many sequences make a batch: a tied output matrix gets three gradients of each."""
POISON = -(1 << 63)
"""A gradient entry that is not a number; adding to it leaves it what it is."""

_MANTISSA_BITS, _MANTISSA = 23, (1 << 23) - 1
_INFINITY = 0x7F800000
_TOP_MANTISSA = (TOP - 4096) << 11
"""The mantissa of TOP / 4096: magnitudes up to it take one more bit of scale."""
_LEAST_EXPONENT = 127 - 100


@dataclass(frozen=True)
class Grid:
    """Vectors on grids. `q`: (..., n, k) int16, |q| <= TOP, n vectors of length k; `step`: (..., n) float32, the power
    of two that one unit of each is worth: 0 for a vector of zeros (which so weighs nothing where it is folded), NaN for
    one that was not finite."""

    q: Tensor
    step: Tensor

    def values(self) -> Tensor:
        """What is represented, (..., n, k) float32: q * step, exactly."""
        return self.q.float().mul_(self.step[..., None])


def quantise(x: Tensor, fold: Tensor | None = None) -> Grid:
    """Bring the vectors along x's last dimension onto their grids. `x`: (..., n, k) float32; `fold`: (..., k), one
    factor for each element, by which x is multiplied first (section 3.3). Raises TypeError for other types."""
    kernels = compiled(x, fold)
    if kernels is not None:
        return Grid(*kernels.quantise(x.detach(), fold, native.cap()))
    return _onto_grids(_times(x, fold if fold is None else fold[..., None, :]))


def quantise_columns(x: Tensor, fold: Tensor | None = None) -> Grid:
    """The same for the vectors along x's dimension before the last. `x`: (..., k, n); `fold`: (..., k). The grid is
    transposed: `q` is (..., n, k), and may be a view of what lies in memory as x does."""
    kernels = compiled(x, fold)
    if kernels is not None:
        return Grid(*kernels.quantise_columns(x.detach(), fold, native.cap()))
    return _onto_grids(_times(x, fold if fold is None else fold[..., :, None]).mT.contiguous())


def quantise_twice(x: Tensor, fold: Tensor | None = None) -> tuple[Grid, Grid]:
    """The vectors along x's last dimension on their grids, and what these leave over on grids of its own: for vectors
    of a few large entries and very many small ones (section 3.6). The remainder is of the folded vector, so that
    nothing is lost to the fold. Arguments as for `quantise`."""
    first = quantise(x, fold)
    return first, quantise(first.values().neg_().add_(_times(x, fold if fold is None else fold[..., None, :])))


def compiled(x: Tensor, fold: Tensor | None = None) -> Kernels | None:
    """The compiled kernels, where they can quantise `x`. Raises TypeError for other types than float32."""
    if x.dtype != torch.float32 or (fold is not None and fold.dtype != torch.float32):
        raise TypeError("grids are made of float32")
    return routes.compiled(x.device) if x.dim() >= 2 else None


def _times(x: Tensor, fold: Tensor | None) -> Tensor:
    x = x.detach()
    return (x if fold is None else x * fold.detach()).contiguous()


def _onto_grids(x: Tensor) -> Grid:
    """The rule of section 3.1 on the bits of the largest magnitude."""
    if x.shape[-1] == 0:
        return Grid(x.to(torch.int16), torch.zeros(x.shape[:-1], device=x.device))
    largest = (x.view(torch.int32) & 0x7FFFFFFF).amax(-1)
    exponent = largest >> _MANTISSA_BITS
    spills = (exponent >= _LEAST_EXPONENT) & ((largest & _MANTISSA) > _TOP_MANTISSA)
    # biased exponents: 127 + s = 127 + 12 - (exponent - 127), and 127 - s for the step
    up = (2 * 127 + 12) - exponent.clamp(min=_LEAST_EXPONENT) - spills.to(torch.int32)
    scale = (up << _MANTISSA_BITS).view(torch.float32)
    step = ((2 * 127 - up) << _MANTISSA_BITS).view(torch.float32)
    finite, empty = largest < _INFINITY, largest == 0
    q = torch.where(finite[..., None], torch.round(x * scale[..., None]), 0.0).to(torch.int16)
    step = torch.where(empty, 0.0, torch.where(finite, step, torch.nan))
    return Grid(q, step)


def onto_gradient_grid(g: Tensor) -> Tensor:
    """One sequence's gradient entries, float64, as int64 multiples of 2^-40: clamped, NaN as POISON."""
    n = torch.round(g.clamp(-GRADIENT_LIMIT, GRADIENT_LIMIT) * 2.0**GRADIENT_BITS)
    return torch.where(torch.isnan(g), POISON, torch.nan_to_num(n).to(torch.int64))


def accumulate(total: Tensor, entries: Tensor) -> None:
    """Add gradient entries to a total, int64 both, in place. Any order and any tree of at most MAX_ENTRIES gradients
    gives the same total. Poison stays poison."""
    poisoned = (total == POISON) | (entries == POISON)
    total.add_(entries).masked_fill_(poisoned, POISON)


def gradient_mean(total: Tensor, tokens: int) -> Tensor:
    """What the optimiser reads: the mean over tokens of a total, float32; NaN where poisoned."""
    if operators.serve(total, dtype=torch.int64):
        return operators.gradient_mean(total, tokens)
    mean = divide(total.double() * 2.0**-GRADIENT_BITS, float(tokens))
    return torch.where(total == POISON, torch.nan, mean).float()
