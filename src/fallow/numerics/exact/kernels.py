"""The compiled operators that are no products: `csrc/elementwise.c`, called with tensors.

They give the same bits as the torch operations beside their callers, in one pass over memory. Callers ask `serve`
first. Every function here takes float32 tensors on the CPU of any layout, and gives new ones (contiguous) unless it
says otherwise.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fallow.numerics.exact import native

_pauses: list[bool] = []
_sound: dict[int, bool] = {}


def serve(*tensors: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the compiled operators take these tensors."""
    if _pauses or any(x.dtype != dtype or x.device.type != "cpu" for x in tensors) or not native.available():
        return False
    cap = native.cap()
    if cap not in _sound:
        _sound[cap] = _agrees()
    return _sound[cap]


@contextmanager
def paused() -> Iterator[None]:
    """Inside, torch's own operations serve. Of the process."""
    _pauses.append(True)
    try:
        yield
    finally:
        _pauses.pop()


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up."""
    gate, up = _alike(gate, up)
    out = torch.empty_like(gate)
    _call("silu_mul", gate, up, out, gate.numel())
    return out


def silu_mul_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up."""
    dy, gate, up = _alike(dy, gate, up)
    d_gate, d_up = torch.empty_like(gate), torch.empty_like(gate)
    _call("silu_mul_backward", dy, gate, up, d_gate, d_up, gate.numel())
    return d_gate, d_up


def softmax(x: Tensor, bounds: Tensor | None, scale: float) -> Tensor:
    """Softmax along the last dimension. `bounds`: (period, 2) int64, the keys that rows see, over and over."""
    x = x.contiguous()
    p = torch.empty_like(x)
    _call("softmax", x, p, *_rows(x), bounds, 1 if bounds is None else len(bounds), scale)
    return p


def softmax_backward(p: Tensor, dp: Tensor, bounds: Tensor | None, scale: float) -> Tensor:
    """The gradient of `softmax`'s x."""
    p, dp = _alike(p, dp)
    dx = torch.empty_like(p)
    _call("softmax_back", p, dp, dx, *_rows(p), bounds, 1 if bounds is None else len(bounds), scale)
    return dx


def cross_entropy(logits: Tensor, targets: Tensor, gradient: Tensor | None) -> Tensor:
    """Losses of rows of logits; writes their gradient into `gradient`, which may be `logits` itself. A negative target
    is ignored; others must be columns."""
    logits, targets = logits.contiguous(), targets.to(torch.int64).contiguous()
    if targets.shape != logits.shape[:-1] or (gradient is not None and gradient.shape != logits.shape):
        raise ValueError("targets and gradient must match the logits")
    losses = torch.empty(logits.shape[:-1])
    _call("cross_entropy", logits, targets, *_rows(logits), losses, gradient)
    return losses


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normed rows, and 1 / root mean square, float64."""
    x = x.contiguous()
    y, r = torch.empty_like(x), torch.empty(x.shape[:-1], dtype=torch.float64)
    _call("rms_norm", x, _vector(weight, x), y, r, *_rows(x), eps)
    return y, r


def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    """The gradient of x."""
    dy, x = _alike(dy, x)
    dx = torch.empty_like(x)
    _call("rms_norm_back", dy, x, _vector(weight, x), _scales(r, x), dx, *_rows(x))
    return dx


def rms_norm_weight_gradient(dy: Tensor, x: Tensor, r: Tensor, bound: float) -> Tensor:
    """(..., T, n) to (..., n) int64: a sequence's gradient, each term clamped to `bound`."""
    dy, x = _alike(dy, x)
    out = torch.empty(*x.shape[:-2], x.shape[-1], dtype=torch.int64)
    _call("rms_norm_weight", dy, x, _scales(r, x), x[..., 0, 0].numel(), *x.shape[-2:], bound, out)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor, turn: float) -> Tensor:
    """Turn (..., T, heads, 2h) by the angles of (T, h), or back where `turn` is -1."""
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    y = torch.empty_like(x)
    tokens, (period, half) = x[..., 0, 0].numel(), cos.shape
    _call("rotate", x, cos, sin, y, tokens, period, x.shape[-2], half, ctypes.c_float(turn))
    return y


def gumbel64(seed: int, stream: int, positions: Tensor, count: int) -> Tensor:
    """Noise of indices 0 to count - 1 at each of (rows,) int64 positions: (rows, count) float64."""
    positions = positions.to(torch.int64).contiguous()
    out = torch.empty(len(positions), count, dtype=torch.float64)
    name = ctypes.c_uint64(seed & (1 << 64) - 1), ctypes.c_uint32(stream & (1 << 32) - 1)
    _call("gumbel", *name, positions, len(positions), out, count)
    return out


def adamw(parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, settings: Sequence[float]) -> None:
    """One step of AdamW in place on contiguous tensors: see `optimizers.AdamW.step`. `settings`: beta 1, 1 - beta 1,
    beta 2, 1 - beta 2, what the root is multiplied by, epsilon, the rate, and what the parameter is multiplied by."""
    gradient = gradient.contiguous()
    if any(x.shape != parameter.shape or not x.is_contiguous() for x in (mean, square, gradient, parameter)):
        raise ValueError("the state of AdamW is contiguous, and shaped as the parameter")
    _call("adamw", parameter, mean, square, gradient, parameter.numel(), (ctypes.c_float * 8)(*settings))


def gradient_mean(total: Tensor, tokens: int) -> Tensor:
    """See `format.gradient_mean`. `total`: int64."""
    total = total.contiguous()
    mean = torch.empty(total.shape)
    _call("gradient_mean", total, mean, total.numel(), float(tokens))
    return mean


def largest(x: Tensor) -> float:
    """The largest magnitude in x: infinity or NaN where an entry is not finite, 0 of nothing."""
    x = x.contiguous()
    bits = _call("largest_bits", x, x.numel())
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))


def squares(x: Tensor, factor: float) -> int:
    """The sum of x^2 `factor`, each rounded to a whole number, which must be at most 2^37: of at most 2^26 numbers."""
    x = x.contiguous()
    return _call("squares", x, x.numel(), factor)


def _agrees() -> bool:
    """Whether the kernels under the present cap keep IEEE's rules: subnormals, roots, quotients, no contraction. The
    wanted numbers come from torch and numpy in binary64."""
    x = torch.tensor([1e-40, 2.0, 3.0, -1e-45, 0.25, 7.0, 1.5, 3e-39, 5.0])
    wide = x.double()
    roots = torch.tensor([1.0 / math.sqrt(value * value + 0.1) for value in wide.tolist()], dtype=torch.float64)
    normed, scales = rms_norm(x[:, None], torch.ones(1), 0.1)
    whole, half = x.repeat(2)[None, :, None], x[:1]
    turned = rotate(whole.expand(1, 18, 2).reshape(1, 1, 36), half.expand(1, 18), half.new_full((1, 18), 3.0), 1.0)
    first, second = whole.expand(1, 18, 2).reshape(36).chunk(2)
    wanted = torch.cat((first * half - second * 3.0, second * half + first * 3.0))
    kept = torch.equal(scales, roots) and torch.equal(normed[:, 0], (wide * roots).float())
    return kept and torch.equal(turned.flatten(), wanted)


def _call(name: str, *values: object) -> int:
    """The function of the library, told how many threads and which instruction set it may use. Tensors go as their
    addresses; they are contiguous and live until it returns."""
    found = native.kernels()
    if found is None:
        raise RuntimeError(f"the compiled operators cannot serve: {native.reason()}")
    function = getattr(found.library, f"fallow_{name}")
    return function(*map(_argument, values), torch.get_num_threads(), native.cap())


def _argument(value: object) -> object:
    match value:
        case Tensor():
            return ctypes.c_void_p(value.data_ptr())
        case int():
            return ctypes.c_int64(value)
        case float():
            return ctypes.c_double(value)
        case _:
            return value


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Contiguous, and of one shape: the C side knows but one number of elements."""
    if any(x.shape != tensors[0].shape for x in tensors):
        raise ValueError(f"shapes differ: {[tuple(x.shape) for x in tensors]}")
    return tuple(x.contiguous() for x in tensors)


def _vector(weight: Tensor, x: Tensor) -> Tensor:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"a weight {tuple(weight.shape)} for rows of {x.shape[-1]}")
    return weight.contiguous()


def _scales(r: Tensor, x: Tensor) -> Tensor:
    if r.shape != x.shape[:-1] or r.dtype != torch.float64:
        raise ValueError("a float64 scale for each row is wanted")
    return r.contiguous()


def _rows(x: Tensor) -> tuple[int, int]:
    """How many rows along the last dimension, and their length."""
    return x.numel() // x.shape[-1] if x.shape[-1] else 0, x.shape[-1]
