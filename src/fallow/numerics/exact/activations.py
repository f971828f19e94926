"""Exact activation functions and their gradients. Source: docs/spec/exact-arithmetic.md, section 8.

`f(x)` gives float32. `f_backward(dy, x)` gives the gradient of x: the product of dy and the derivative in binary64,
rounded once.
"""

from __future__ import annotations

from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.constants import GELU_CUBIC, ONE_OVER_SQRT_TWO_PI, SQRT_HALF, SQRT_TWO_OVER_PI
from fallow.numerics.exact.functions import erfc64, exp64, sigmoid64

_FAR = 700.0
"""Beyond it a sigmoid is 0 or 1 to all of binary64, so clamping a factor there keeps 0 * infinity away."""


def silu(x: Tensor) -> Tensor:
    """X / (1 + e^-x), float32; -inf gives -0."""
    return kernels.apply("silu", x) if kernels.serve(x) else silu64(x.double()).float()


def silu64(x: Tensor) -> Tensor:
    """X / (1 + e^-x) in float64."""
    return x.clamp(min=-_FAR) / (exp64(-x) + 1.0)


def silu_slope64(x: Tensor) -> Tensor:
    """The derivative of SiLU in float64."""
    s = sigmoid64(x)
    return s * (x.clamp(-_FAR, _FAR) * (1.0 - s) + 1.0)


def silu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x through `silu`, float32."""
    if kernels.serve(dy, x):
        return kernels.apply_back("silu", dy, x)
    return (dy.double() * silu_slope64(x.double())).float()


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up, float32, rounded once."""
    if kernels.serve(gate, up):
        return kernels.apply_back("silu_mul", gate, up)
    return (silu64(gate.double()) * up.double()).float()


def silu_mul_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up through `silu_mul`, float32."""
    if kernels.serve(dy, gate, up):
        return kernels.silu_mul_backward(dy, gate, up)
    slope, wide = dy.double(), gate.double()
    return ((slope * up.double()) * silu_slope64(wide)).float(), (slope * silu64(wide)).float()


def gelu(x: Tensor) -> Tensor:
    """X * Phi(x) with the error function, float32; -inf gives -0."""
    if kernels.serve(x):
        return kernels.apply("gelu", x)
    wide = x.double()
    return (wide.clamp(min=-_FAR) * normal_cdf64(wide)).float()


def normal_cdf64(x: Tensor) -> Tensor:
    """Phi(x), the normal distribution, in float64; precise relative to its value on both sides."""
    tail = erfc64(x.abs() * SQRT_HALF) * 0.5
    return tail.where(x < 0, 1.0 - tail)


def gelu_slope64(x: Tensor) -> Tensor:
    """The derivative of GELU in float64."""
    near = x.clamp(-_FAR, _FAR)
    density = exp64((near * near) * -0.5) * ONE_OVER_SQRT_TWO_PI
    return normal_cdf64(x) + near * density


def gelu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x through `gelu`, float32."""
    if kernels.serve(dy, x):
        return kernels.apply_back("gelu", dy, x)
    return (dy.double() * gelu_slope64(x.double())).float()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh form, 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3), float32."""
    if kernels.serve(x):
        return kernels.apply("gelu_tanh", x)
    near = x.double().clamp(min=-_FAR)
    return (near / (exp64(-_twice_u(near)) + 1.0)).float()


def gelu_tanh_slope64(x: Tensor) -> Tensor:
    """The derivative of GELU's tanh form in float64."""
    near = x.clamp(-_FAR, _FAR)
    s = sigmoid64(_twice_u(near))
    du = ((near * near) * (3.0 * GELU_CUBIC) + 1.0) * (2.0 * SQRT_TWO_OVER_PI)
    return s * ((near * (1.0 - s)) * du + 1.0)


def gelu_tanh_backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x through `gelu_tanh`, float32."""
    if kernels.serve(dy, x):
        return kernels.apply_back("gelu_tanh", dy, x)
    return (dy.double() * gelu_tanh_slope64(x.double())).float()


def tanh_backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x through `functions.tanh`, float32."""
    if kernels.serve(dy, x):
        return kernels.apply_back("tanh", dy, x)
    twice = x.double() * 2.0
    return (dy.double() * ((sigmoid64(twice) * sigmoid64(-twice)) * 4.0)).float()


def sigmoid_backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x through `functions.sigmoid`, float32."""
    if kernels.serve(dy, x):
        return kernels.apply_back("sigmoid", dy, x)
    wide = x.double()
    return (dy.double() * (sigmoid64(wide) * sigmoid64(-wide))).float()


def _twice_u(x: Tensor) -> Tensor:
    return (((x * x) * GELU_CUBIC + 1.0) * x) * (2.0 * SQRT_TWO_OVER_PI)
