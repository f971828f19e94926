"""The exact gated activation and its gradients, each in binary64 and rounded once. Source:
docs/spec/exact-arithmetic.md, section 8."""

from __future__ import annotations

from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.functions import exp64

_FAR = 700.0
"""Beyond it a sigmoid is 0 or 1 to all of binary64, so clamping a factor there keeps 0 * infinity away."""


def silu64(x: Tensor) -> Tensor:
    """X / (1 + e^-x) in float64."""
    return x.clamp(min=-_FAR) / (exp64(-x) + 1.0)


def silu_slope64(x: Tensor) -> Tensor:
    """The derivative of SiLU in float64."""
    s = 1.0 / (exp64(-x) + 1.0)
    return s * (x.clamp(-_FAR, _FAR) * (1.0 - s) + 1.0)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up, float32, rounded once."""
    if kernels.serve(gate, up):
        return kernels.silu_mul(gate, up)
    return (silu64(gate.double()) * up.double()).float()


def silu_mul_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up through `silu_mul`, float32."""
    if kernels.serve(dy, gate, up):
        return kernels.silu_mul_backward(dy, gate, up)
    slope, wide = dy.double(), gate.double()
    return ((slope * up.double()) * silu_slope64(wide)).float(), (slope * silu64(wide)).float()
