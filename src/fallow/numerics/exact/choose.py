"""Canonical choices among logits: argmax, top-k, top-p, seeded samples. Source: docs/spec/exact-arithmetic.md, section
14.

The order of candidates is total: a larger value comes first, of equal values the lower index. -0 equals +0. NaN counts
as -infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact.draws import gumbel_rows64
from fallow.numerics.exact.functions import divide
from fallow.numerics.exact.softmax import weights_of

LEADING = 1024
"""How many candidates are put in order first, since few are left by `top_p` as a rule; changes no bit."""


def argmax(x: Tensor) -> Tensor:
    """The first candidate's index along the last dimension: (..., V) float32 or float64 to (...) int64."""
    x = _cleared(x)
    places = torch.arange(x.shape[-1], device=x.device)
    return torch.where(x == x.amax(-1, keepdim=True), places, x.shape[-1]).amin(-1)


def top_k(x: Tensor, k: int) -> Tensor:
    """The indices of the first k candidates in order: (..., V) float32 to (..., min(k, V)) int64."""
    bits = _cleared(x).view(torch.int32).to(torch.int64)
    rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    places = torch.arange(x.shape[-1], device=x.device)
    # no two keys are equal, so whatever sorts them finds the same order
    keys = (rank << 32) + (x.shape[-1] - 1 - places)
    return x.shape[-1] - 1 - (keys.topk(min(k, x.shape[-1]), -1).values & 0xFFFFFFFF)


def top_p(x: Tensor, p: float) -> Tensor:
    """Which candidates are in the smallest leading group whose softmax weight reaches p of the total: bool, like x.
    The first candidate always is."""
    weights, total, _ = weights_of(_cleared(x))
    limit = (total * p)[..., None]
    for count in (LEADING, x.shape[-1]):
        order = top_k(x, count)
        points = torch.round(weights.gather(-1, order).double() * 2.0**32).to(torch.int64)
        before = points.cumsum(-1) - points
        kept = before.double() < limit
        if not kept[..., -1].any():
            break  # whoever comes after these has at least as much before it
    kept[..., 0] = True
    return torch.zeros(x.shape, dtype=torch.bool, device=x.device).scatter_(-1, order, kept)


def sample(
    logits: Tensor,
    temperature: float,
    seed: int,
    stream: int,
    position: Tensor | int,
    *,
    k: int | None = None,
    p: float | None = None,
) -> Tensor:
    """Draw from softmax(logits / temperature) by Gumbel noise named (seed, stream, position, index in the vocabulary):
    (..., V) float32 to (...) int64. `position` broadcasts to (...). Only the first k candidates take part if k is
    given, and of these only `top_p`. Temperature 0 is `argmax`. A row's choice depends on nothing but its own
    arguments.
    """
    x = _cleared(logits)
    if temperature == 0:
        return argmax(x)
    x = divide(x.double(), temperature).float()
    if k is not None:
        kept = torch.zeros_like(x, dtype=torch.bool).scatter_(-1, top_k(x, k), True)
        x = x.masked_fill(~kept, -torch.inf)
    if p is not None:
        x = x.masked_fill(~top_p(x, p), -torch.inf)
    where = torch.as_tensor(position, device=x.device).expand(x.shape[:-1]).reshape(-1)
    return argmax(x.double() + gumbel_rows64(seed, stream, where, x.shape[-1]).view(x.shape))


def _cleared(x: Tensor) -> Tensor:
    """NaN as -infinity, and -0 as +0."""
    return torch.where(torch.isnan(x), -torch.inf, x + 0.0)
