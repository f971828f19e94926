"""Exact elementary functions: fixed sequences of IEEE operations in binary64, one rounding to binary32 at the end.

`f(x)` takes and gives float32; `f64(x)` takes and gives float64 and is what operators build on. Every line below is one
rounded operation of the specification, in its order; torch runs each as a kernel of its own, so nothing is contracted,
on any device. On the CPU one compiled kernel gives the same bits in one pass. No function raises on NaN or infinity.
Source: docs/spec/exact-arithmetic.md, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.constants import (
    COS,
    ERF,
    ERFCX,
    ERFCX_CENTRE,
    EXP,
    EXP_LIMIT,
    HALF_PI,
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


def exp(x: Tensor) -> Tensor:
    """e^x, float32."""
    return kernels.apply("exp", x) if kernels.serve(x) else exp64(x.double()).float()


def log(x: Tensor) -> Tensor:
    """The natural logarithm, float32: -inf at both zeros, NaN below."""
    return kernels.apply("log", x) if kernels.serve(x) else log64(x.double()).float()


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, float32; odd, -0 stays -0."""
    return kernels.apply("tanh", x) if kernels.serve(x) else tanh64(x.double()).float()


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), float32."""
    return kernels.apply("sigmoid", x) if kernels.serve(x) else sigmoid64(x.double()).float()


def erf(x: Tensor) -> Tensor:
    """The error function, float32; odd, -0 stays -0."""
    return kernels.apply("erf", x) if kernels.serve(x) else erf64(x.double()).float()


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x), float32: an infinity of the zero's sign at a zero, NaN below."""
    return kernels.apply("rsqrt", x) if kernels.serve(x) else (1.0 / sqrt(x.double())).float()


def sqrt(x: Tensor) -> Tensor:
    """The correctly rounded square root, of the type of x, float32 or float64. `torch.sqrt` is not: on the CPU it may
    be a vector library's, with an error in the last place."""
    if x.device.type != "cpu":
        return torch.sqrt(x)
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(np.atleast_1d(x.detach().numpy()))).view(x.shape)


def sin(x: Tensor) -> Tensor:
    """Sine of radians, float32; odd, -0 stays -0. NaN where |x| > 2^22."""
    return kernels.apply("sin", x) if kernels.serve(x) else sincos64(x.double())[0].float()


def cos(x: Tensor) -> Tensor:
    """Cosine of radians, float32. NaN where |x| > 2^22."""
    return kernels.apply("cos", x) if kernels.serve(x) else sincos64(x.double())[1].float()


def power_of_two(k: Tensor) -> Tensor:
    """2^k as float64 for int64 k in [-1022, 1023]."""
    return ((k << 52) + _ONE_BITS).view(torch.float64)


def exp64(x: Tensor) -> Tensor:
    """e^x in float64 for arguments clamped to [-700, 700]; positive unless NaN."""
    q, s = _exp_parts(x)
    return (q + 1.0) * s


def expm1_64(x: Tensor) -> Tensor:
    """e^x - 1 in float64, precise near 0, for arguments clamped to [-700, 700]."""
    q, s = _exp_parts(x)
    return q * s + (s - 1.0)


def _exp_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Q and s with e^x = (1 + q) * s, s a power of two, |q| < 0.42."""
    x = x.clamp(-EXP_LIMIT, EXP_LIMIT)
    k = torch.round(x * LOG2_E)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    q = (horner(r, EXP) * r) * r + r
    return q, power_of_two(k.to(torch.int64))


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


def tanh64(x: Tensor) -> Tensor:
    """Hyperbolic tangent in float64."""
    a = x.abs()
    p = expm1_64(a + a)
    return torch.copysign(p / (p + 2.0), x)


def sigmoid64(x: Tensor) -> Tensor:
    """1 / (1 + e^-x) in float64."""
    return 1.0 / (exp64(-x) + 1.0)


def erfc64(x: Tensor) -> Tensor:
    """1 - erf(x) in float64 for x >= 0, precise relative to its value however small."""
    x = x.clamp(max=26.0)
    t = (x - ERFCX_CENTRE) / (x + ERFCX_CENTRE)
    return (exp64(-(x * x)) * horner(t, ERFCX)) / ((x + x) + 1.0)


def erf64(x: Tensor) -> Tensor:
    """The error function in float64."""
    a = x.abs()
    y = torch.where(a < 0.5, horner(a * a, ERF) * a, 1.0 - erfc64(a))
    return torch.copysign(y, x)


def sincos64(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine in float64 of radians; NaN where |x| > 2^22."""
    a = x.abs()
    a = torch.where(a <= SIN_LIMIT, a, torch.nan)
    k = torch.round(a * TWO_OVER_PI)
    first, second, third = HALF_PI_PARTS
    r = ((a - k * first) - k * second) - k * third
    sine, cosine = _by_quadrant(r, k)
    return sine * torch.copysign(torch.ones_like(x), x), cosine


def sincos_turns64(u: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine in float64 of 2 pi u, for u in [0, 1]."""
    a = u * 4.0
    k = torch.round(a)
    return _by_quadrant((a - k) * HALF_PI, k)


def _by_quadrant(r: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of r + k pi/2, |r| <= pi/4."""
    z = r * r
    s = (horner(z, SIN) * z) * r + r
    c = horner(z, COS) * z + 1.0
    quadrant = k.to(torch.int64) & 3
    odd = (quadrant & 1) == 1
    sine, cosine = torch.where(odd, c, s), torch.where(odd, s, c)
    return torch.where(quadrant >= 2, -sine, sine), torch.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)


def divide(x: Tensor, by: float) -> Tensor:
    """X / by, rounded once: torch on a GPU divides by a plain number by multiplying with its reciprocal."""
    return x / torch.full((), by, dtype=x.dtype, device=x.device)


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, highest power first: multiply, add, multiply, add..."""
    y = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        y = y * x + coefficient
    return y
