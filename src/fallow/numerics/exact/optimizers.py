"""An optimiser whose every step is a fixed sequence of rounded operations on each element, a norm that does not depend
on the order of its terms, and learning rates without a mathematical library.

A setting is a binary64 number; where it meets a tensor it is first rounded to binary32. Nothing divides by a setting:
GPUs turn that into a multiplication by its reciprocal. Source: docs/spec/exact-arithmetic.md, section 19; Loshchilov
and Hutter, Decoupled Weight Decay Regularization, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.functions import sincos64, sqrt

NORM_BITS = 36
NORM_TERMS = 1 << 26
"""As many squares are summed in one int64 before the sums go on in Python's integers: 2^26 2^36 < 2^63."""
MAX_STEPS = 1 << 40


def gradient_norm(gradients: Mapping[str, Tensor]) -> float:
    """The Euclidean norm of all entries together, fp32 tensors: each square is put on a grid of 2^36 steps up to the
    largest, so that no order matters. NaN where an entry is not finite."""
    flat = [gradient.reshape(-1) for gradient in gradients.values() if gradient.numel()]
    magnitudes = [_largest(part) for part in flat]
    if not all(math.isfinite(magnitude) for magnitude in magnitudes):
        return math.nan
    largest = max(magnitudes, default=0.0)
    if largest == 0.0:
        return 0.0
    _, exponent = math.frexp(largest * largest)  # the square is below 2^exponent
    factor = math.ldexp(1.0, NORM_BITS - exponent)
    total = 0
    for part in flat:
        for piece in part.split(NORM_TERMS):
            total += _squares(piece, factor)
    return math.sqrt(math.ldexp(float(total), exponent - NORM_BITS))


def _largest(x: Tensor) -> float:
    return kernels.largest(x) if kernels.serve(x) else float(x.abs().max())


def _squares(x: Tensor, factor: float) -> int:
    if kernels.serve(x):
        return kernels.squares(x, factor)
    wide = x.double()
    return int(torch.round(wide * wide * factor).to(torch.int64).sum())


def clip(gradients: Mapping[str, Tensor], limit: float) -> float:
    """Scale gradients down, in place, to a common norm of at most `limit`; 0 leaves them. -> the norm before."""
    norm = gradient_norm(gradients)
    if limit > 0 and norm > limit:
        factor = limit / norm
        for gradient in gradients.values():
            gradient.mul_(factor)
    return norm


def power(base: float, exponent: int) -> float:
    """base^exponent by squaring, from the exponent's lowest bit up: binary64 products in a fixed order, where a
    library's power may round otherwise."""
    result, square = 1.0, base
    while exponent:
        if exponent & 1:
            result *= square
        square *= square
        exponent >>= 1
    return result


@dataclass(frozen=True)
class ExactSchedule:
    """Linear warm-up to `top` over `warmup` steps, then half a cosine down to `floor` of it at step `total`."""

    top: float
    warmup: int
    total: int
    floor: float = 0.1

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, from 0."""
        if step < self.warmup:
            return self.top * float(step + 1) / float(self.warmup)
        done = min(1.0, float(step - self.warmup) / float(max(1, self.total - self.warmup)))
        cosine = float(sincos64(torch.tensor([math.pi * done], dtype=torch.float64))[1])
        return self.top * (self.floor + (1.0 - self.floor) * (0.5 * (1.0 + cosine)))


class ExactAdamW:
    """AdamW over named parameters, changed in place. `means` and `squares` are its moments, fp32, `steps` how many
    steps they have seen."""

    def __init__(
        self, parameters: Mapping[str, Tensor], *, beta_1: float = 0.9, beta_2: float = 0.95, epsilon: float = 1e-8
    ) -> None:
        self.parameters = dict(sorted(parameters.items()))
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.means = {name: torch.zeros_like(p, requires_grad=False) for name, p in self.parameters.items()}
        self.squares = {name: torch.zeros_like(p, requires_grad=False) for name, p in self.parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rate: float, decay: float = 0.0) -> None:
        """One step with the mean gradients, fp32; a parameter without one stays."""
        self.steps += 1
        up = rate / (1.0 - power(self.beta_1, self.steps))
        down = 1.0 / math.sqrt(1.0 - power(self.beta_2, self.steps))
        keep = 1.0 - rate * decay
        first, second = (self.beta_1, 1.0 - self.beta_1), (self.beta_2, 1.0 - self.beta_2)
        for name, parameter in self.parameters.items():
            gradient = gradients.get(name)
            if gradient is None:
                continue
            mean, square = self.means[name], self.squares[name]
            if kernels.serve(parameter, mean, square, gradient) and parameter.is_contiguous():
                kernels.adamw(parameter, mean, square, gradient, (*first, *second, down, self.epsilon, up, keep))
                torch.autograd.graph.increment_version(parameter)
                continue
            mean.mul_(self.beta_1).add_(gradient * (1.0 - self.beta_1))
            square.mul_(self.beta_2).add_((gradient * gradient).mul_(1.0 - self.beta_2))
            below = sqrt(square).mul_(down).add_(self.epsilon)
            parameter.mul_(keep).sub_((mean * up).div_(below))

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on but the parameters: tensors by name (not copies)."""
        found = {"step": torch.tensor([self.steps], dtype=torch.int64)}
        found |= {f"mean/{name}": value for name, value in self.means.items()}
        return found | {f"square/{name}": value for name, value in self.squares.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state` (copied). Raises ValueError when it is not of this optimiser for these parameters."""
        own = self.state()
        if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in state.items()}:
            raise ValueError("the optimiser state is of other parameters")
        steps = int(state["step"][0])
        if not 0 <= steps <= MAX_STEPS:
            raise ValueError("the optimiser state counts impossible steps")
        for name, value in own.items():
            value.copy_(state[name])
        self.steps = steps
