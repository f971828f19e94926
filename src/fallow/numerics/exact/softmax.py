"""Exact softmax over rows and its gradient. Source: docs/spec/exact-arithmetic.md, section 7."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.functions import exp64
from fallow.numerics.exact.gridsum import check_terms, gridsum

WEIGHT_BITS = 32
"""A row's weights e^(x - max) are at most 1; their sum is taken on the grid of step 2^-32."""
MAX_WEIGHTS = 1 << 21
"""As many weights sum below 2^53."""


@dataclass(frozen=True)
class Span:
    """Which keys a row may see: those from `start` up to, not including, `stop`, int64 both, of any shape that
    broadcasts to the rows."""

    start: Tensor
    stop: Tensor

    def bounds(self, rows: torch.Size) -> Tensor:
        """(period, 2) int64: what rows of a tensor of such rows see, over and over."""
        start, stop = torch.broadcast_tensors(self.start, self.stop)
        pairs = torch.stack((start, stop), -1).to(torch.int64)
        if start.shape != rows[len(rows) - start.dim() :]:
            pairs = pairs.expand(*rows, 2)
        return pairs.reshape(-1, 2).contiguous()

    def visible(self, keys: int) -> Tensor:
        """(rows..., keys) bool."""
        places = torch.arange(keys, device=self.stop.device)
        return (places >= self.start[..., None]) & (places < self.stop[..., None])


def causal(queries: int, past: int, *, window: int = 0, device: torch.device | str = "cpu") -> Span:
    """What each of `queries` rows that follow `past` others may see: itself and all before, or with a `window` the last
    so many up to itself."""
    stop = torch.arange(past + 1, past + queries + 1, device=device)
    return Span((stop - window).clamp(min=0) if window else torch.zeros_like(stop), stop)


def softmax(x: Tensor, span: Span | None = None, *, scale: float = 1.0) -> Tensor:
    """Softmax of scale * x along the last dimension, (..., k) float32, `scale` > 0. What a row may not see weighs +0
    and its x does not matter. A row that sees nothing, or nothing but -inf, or a NaN, or +inf, is +0 or NaN: section
    7."""
    if kernels.serve(x):
        _check(x.shape[-1])
        return kernels.softmax(x, None if span is None else span.bounds(x.shape[:-1]), scale)
    weights, total, visible = _weights(x, scale, span)[:3]
    p = (weights.double() * reciprocal(total)[..., None]).float()
    return p if visible is None else torch.where(visible, p, 0.0)


def softmax_backward(p: Tensor, dp: Tensor, span: Span | None = None, *, scale: float = 1.0) -> Tensor:
    """The gradient of x, given softmax's output and the gradient of it, float32 all, at most 2^17 keys. Where p is 0 it
    is +0, whatever dp is; so `span` changes nothing, but saves the work on what rows did not see."""
    check_terms(p.shape[-1])
    if kernels.serve(p, dp):
        return kernels.softmax_backward(p, dp, None if span is None else span.bounds(p.shape[:-1]), scale)
    empty = p == 0
    weight, slope = p.double(), dp.double().masked_fill(empty, 0.0)
    centre = gridsum(weight * slope)
    return ((weight * (slope - centre[..., None])) * scale).float().masked_fill(empty, 0.0)


def reciprocal(total: Tensor) -> Tensor:
    """1 / (sum of weights), float64, from the sum in grid points."""
    return 1.0 / (total * 2.0**-WEIGHT_BITS)


def weights_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of logits as weights e^(x - max) float32, their sum in grid points float64, and the max float64."""
    weights, total, _, largest = _weights(x, 1.0, None)
    return weights, total, largest


def _weights(x: Tensor, scale: float, span: Span | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    _check(x.shape[-1])
    z = x.double() * scale
    visible = None
    if span is not None:
        visible = span.visible(x.shape[-1])
        z = z.masked_fill(~visible, -torch.inf)
    largest = z.amax(-1)
    weights = exp64(z - largest[..., None]).float()
    if visible is not None:
        weights = weights.masked_fill(~visible, 0.0)
    total = torch.round(weights.double() * 2.0**WEIGHT_BITS).sum(-1)
    return weights, total, visible, largest


def _check(weights: int) -> None:
    if weights > MAX_WEIGHTS:
        raise ValueError(f"at most 2^21 weights have an exact sum, not {weights}")
