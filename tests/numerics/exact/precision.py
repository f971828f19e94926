"""Distances to the truth, by mpmath: what the bounds of the specification are measured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import torch
from hypothesis import strategies as st
from torch import Tensor

mpmath.mp.prec = 200

Real = Any
"""An `mpmath.mpf`, which has no types."""


def ulp(truth: Real) -> float:
    """The unit of the last place that a binary32 has at a number."""
    exponent = -126 if truth == 0 else max(int(mpmath.floor(mpmath.log(abs(truth), 2))), -126)
    return 2.0 ** (exponent - 23)


def ulps(value: float, truth: Real) -> float:
    """How far a binary32 lies from the truth, in units of the last place that a binary32 has there."""
    if truth == 0:
        return 0.0 if value == 0 else float("inf")
    return float(abs(mpmath.mpf(value) - truth) / ulp(truth))


def worst(outputs: Tensor, truth: Callable[[Real], Real], inputs: Tensor) -> float:
    """The largest such distance over elements whose truth binary32 can hold."""
    distances = [0.0]
    for y, x in zip(outputs.tolist(), inputs.tolist(), strict=True):
        exact = truth(mpmath.mpf(x))
        if abs(exact) < mpmath.mpf(2) ** 128 * (1 - mpmath.mpf(2) ** -25):
            distances.append(ulps(y, exact))
    return max(distances)


def spread(low: float, high: float, count: int, seed: int) -> Tensor:
    """Random binary32 of both signs, their magnitudes log-uniform in [10^low, 10^high]."""
    generator = torch.Generator().manual_seed(seed)
    powers = low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return (signs * 10.0**powers).float()


ANY_BITS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6)
"""Bits of binary32 of every kind: subnormals, infinities and NaN are as likely as others of one exponent."""


def of_bits(words: list[int]) -> Tensor:
    return torch.tensor(words, dtype=torch.int64).to(torch.int32).view(torch.float32)


def rows(limit: float, longest: int) -> st.SearchStrategy[list[float]]:
    """Rows of finite binary32 up to a magnitude, subnormals and zeros of both signs among them."""
    edges = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-39, limit, -limit])
    return st.lists(st.floats(-limit, limit, width=32) | edges, min_size=1, max_size=longest)


def even(low: float, high: float, count: int, seed: int) -> Tensor:
    """Random binary32, uniform in [low, high]."""
    generator = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)).float()


def bits(x: Tensor) -> Tensor:
    """The bits of float32 or float64, every NaN alike, to compare with `torch.equal`."""
    kind = torch.int32 if x.dtype == torch.float32 else torch.int64
    return torch.where(torch.isnan(x), torch.full_like(x, torch.nan), x).contiguous().view(kind)
