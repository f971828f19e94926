"""Exact elementary functions in binary64: fixed sequences of IEEE operations, which operators build on and round to
binary32 at their end.

Every line below is one rounded operation of the specification, in its order; torch runs each as a kernel of its own, so
nothing is contracted, on any device. No function raises on NaN or infinity. Source: docs/spec/exact-arithmetic.md,
section 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fallow.numerics.exact.constants import (
    COS,
    EXP,
    EXP_LIMIT,
    HALF_PI_PARTS,
    LN2_HIGH,
    LN2_LOW,
    LOG,
    LOG2_E,
    SIN,
    SIN_LIMIT,
    SQRT_HALF_BITS,
    TWO_OVER_PI,
)

_ONE_BITS = 0x3FF0000000000000
_MANTISSA = (1 << 52) - 1


def sqrt(x: Tensor) -> Tensor:
    """The correctly rounded square root, of the type of x, float32 or float64. `torch.sqrt` is not: on the CPU it may
    be a vector library's, with an error in the last place."""
    if x.device.type != "cpu":
        return torch.sqrt(x)
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(np.atleast_1d(x.detach().numpy()))).view(x.shape)


def power_of_two(k: Tensor) -> Tensor:
    """2^k as float64 for int64 k in [-1022, 1023]."""
    return ((k << 52) + _ONE_BITS).view(torch.float64)


def exp64(x: Tensor) -> Tensor:
    """e^x in float64 for arguments clamped to [-700, 700]; positive unless NaN."""
    x = x.clamp(-EXP_LIMIT, EXP_LIMIT)
    k = torch.round(x * LOG2_E)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    q = (horner(r, EXP) * r) * r + r
    return (q + 1.0) * power_of_two(k.to(torch.int64))


def log64(x: Tensor) -> Tensor:
    """The natural logarithm in float64 of numbers that are 0 or at least 2^-1022; -inf at zeros, NaN below."""
    bits = x.view(torch.int64) + (_ONE_BITS - SQRT_HALF_BITS)
    k = ((bits >> 52) - 1023).double()
    m = ((bits & _MANTISSA) + SQRT_HALF_BITS).view(torch.float64)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    small = (horner(z, LOG) * z) * s + (s + s)
    y = (k * LN2_LOW + small) + k * LN2_HIGH
    y = torch.where(x == torch.inf, torch.inf, y)
    y = torch.where(x == 0, -torch.inf, y)
    return torch.where(x >= 0, y, torch.nan)


def sincos64(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine in float64 of radians; NaN where |x| > 2^22."""
    a = x.abs()
    a = torch.where(a <= SIN_LIMIT, a, torch.nan)
    k = torch.round(a * TWO_OVER_PI)
    first, second, third = HALF_PI_PARTS
    r = ((a - k * first) - k * second) - k * third
    z = r * r
    s = (horner(z, SIN) * z) * r + r
    c = horner(z, COS) * z + 1.0
    quadrant = k.to(torch.int64) & 3
    odd = (quadrant & 1) == 1
    sine, cosine = torch.where(odd, c, s), torch.where(odd, s, c)
    sine = torch.where(quadrant >= 2, -sine, sine)
    cosine = torch.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return sine * torch.copysign(torch.ones_like(x), x), cosine


def divide(x: Tensor, by: float) -> Tensor:
    """X / by, rounded once: torch on a GPU divides by a plain number by multiplying with its reciprocal."""
    return x / torch.full((), by, dtype=x.dtype, device=x.device)


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, highest power first: multiply, add, multiply, add..."""
    y = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        y = y * x + coefficient
    return y
