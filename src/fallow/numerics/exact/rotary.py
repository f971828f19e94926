"""Exact rotary position embeddings: frequencies, tables, rotation. Source: docs/spec/exact-arithmetic.md, section
10."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.constants import HALF_PI
from fallow.numerics.exact.functions import exp64, log64, sincos64


def frequencies(head_size: int, base: float, scaling: Mapping[str, object] | None = None) -> Tensor:
    """The head_size / 2 rotary frequencies in radians a position, float32.

    `scaling` is a transformers `rope_parameters` (or `rope_scaling`) mapping; kinds "default", "linear" and "llama3".
    Raises ValueError for other kinds.
    """
    half = torch.arange(head_size // 2, dtype=torch.float64)
    turns = (half * 2.0) / torch.full_like(half, head_size)
    inverse = exp64(-(turns * log64(torch.tensor(base, dtype=torch.float64))))
    kind = "default" if scaling is None else str(scaling.get("rope_type", scaling.get("type", "default")))
    if kind == "default":
        return inverse.float()
    if scaling is None or kind not in ("linear", "llama3"):
        raise ValueError(f"rotary scaling {kind!r} has no exact form")
    slowed = inverse / _number(scaling, "factor", inverse)
    return (slowed if kind == "linear" else _llama3(inverse, slowed, scaling)).float()


def _llama3(inverse: Tensor, slowed: Tensor, scaling: Mapping[str, object]) -> Tensor:
    """Long waves are slowed, short ones kept, and those between are blended by how many waves the old context held."""
    low, high = _number(scaling, "low_freq_factor", inverse), _number(scaling, "high_freq_factor", inverse)
    waves = (_number(scaling, "original_max_position_embeddings", inverse) * inverse) / (
        inverse.new_full((), 4.0) * HALF_PI
    )
    keep = (waves - low) / (high - low)
    blend = (1.0 - keep) * slowed + keep * inverse
    return torch.where(waves < low, slowed, torch.where(waves > high, inverse, blend))


def _number(scaling: Mapping[str, object], name: str, like: Tensor) -> Tensor:
    value = scaling.get(name)
    if not isinstance(value, (int, float)):
        raise ValueError(f"rotary scaling wants the number {name!r}")
    return like.new_full((), float(value))


def tables(positions: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * frequency: (..., T) int64 and (h,) float32 to (..., T, h) float32. The angle is
    one binary32 product, as transformers takes it. NaN beyond 2^22 radians."""
    angle = positions.float()[..., None] * inverse
    sine, cosine = sincos64(angle.double())
    return cosine.float(), sine.float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i+h}) of (..., T, heads, 2h) by the angles of (..., T, h), float32: each product, sum and
    difference is one rounded binary32 operation."""
    if _fits(x, cos, sin):
        return kernels.rotate(x, cos.flatten(0, -2), sin.flatten(0, -2), 1.0)
    first, second = x.chunk(2, -1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def rotate_back(dy: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient of x through `rotate`: the opposite turn."""
    if _fits(dy, cos, sin):
        return kernels.rotate(dy, cos.flatten(0, -2), sin.flatten(0, -2), -1.0)
    return rotate(dy, cos, -sin)


def _fits(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether the compiled kernel takes these: one table for all sequences, or one for each."""
    tables = cos.shape == sin.shape and cos.shape[:-1] in (x.shape[-3:-2], x.shape[:-2])
    return tables and cos.shape[-1] == x.shape[-1] // 2 and kernels.serve(x, cos, sin)
