"""The outer step: many workers' updates become one, with the same bits for everybody.

Sums of floating-point numbers depend on their order; sums of integers do not. Each entry of an update is turned into
fixed point (int64 with 40 fractional bits: exact enough to lose nothing that matters, and elementwise, so equal
everywhere), summed as integers, and only the final mean is rounded to fp32. Whoever applies the same updates, in
whatever order they arrived, holds the same state.

Source: docs/spec/exact-arithmetic.md, section 22. The outer step is DiLoCo's (Douillard et al., DiLoCo, algorithm 1)
with Nesterov momentum in PyTorch's form: b <- mu b + g; theta <- theta - eta (g + mu b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fallow.numerics.compress import MAX_MAGNITUDE, Floats, Packed, products
from fallow.numerics.layout import TensorShape

FRACTION_BITS = 40
MAX_UPDATES = 4096
assert MAX_MAGNITUDE * 1.01 * MAX_UPDATES * 2.0**FRACTION_BITS < 2.0**63, "the sum of all updates must fit int64"


@dataclass
class MeanUpdate:
    """Adds up updates, one at a time, in any order. At most MAX_UPDATES."""

    shapes: Mapping[str, TensorShape]
    count: int = 0
    _sums: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict[str, npt.NDArray[np.int64]])

    def add(self, update: Mapping[str, Packed]) -> None:
        """`update` has exactly the tensors of `shapes` (`read_update` saw to it)."""
        if self.count >= MAX_UPDATES:
            raise ValueError(f"more than {MAX_UPDATES} updates in one round")
        self.count += 1
        for name in self.shapes:
            fixed = np.rint(products(update[name]) * 2.0**FRACTION_BITS).astype(np.int64)
            if name in self._sums:
                self._sums[name] += fixed
            else:
                self._sums[name] = fixed

    def mean(self) -> dict[str, Floats]:
        """The mean, fp32. Raises ValueError when nothing was added."""
        if not self.count:
            raise ValueError("the mean of no updates")
        divisor = float(self.count) * 2.0**FRACTION_BITS
        return {
            name: (self._sums[name].astype(np.float64) / divisor).astype(np.float32).reshape(shape)
            for name, shape in self.shapes.items()
        }


@dataclass
class SharedState:
    """What all workers of a job agree on: the trainable parameters `theta` and the outer momentum, fp32, by name."""

    theta: dict[str, Floats]
    momentum: dict[str, Floats]

    @classmethod
    def start(cls, theta: Mapping[str, Floats]) -> SharedState:
        """The state before the first round: `theta` as given (copied), no momentum."""
        return cls({n: v.copy() for n, v in theta.items()}, {n: np.zeros_like(v) for n, v in theta.items()})

    def shapes(self) -> dict[str, TensorShape]:
        return {name: value.shape for name, value in self.theta.items()}

    def guess(self, gradient: Mapping[str, Floats], learning_rate: float, momentum: float) -> dict[str, Floats]:
        """The parameters as one outer step would leave them; the state stays. Costs one copy of the parameters."""
        found = {name: theta.copy() for name, theta in self.theta.items()}
        for name, theta in found.items():
            _step(theta, self.momentum[name].copy(), gradient[name], learning_rate, momentum)
        return found

    def outer_step(self, gradient: Mapping[str, Floats], learning_rate: float, momentum: float) -> None:
        """One outer step in place."""
        for name, theta in self.theta.items():
            _step(theta, self.momentum[name], gradient[name], learning_rate, momentum)


def _step(theta: Floats, velocity: Floats, mean: Floats, learning_rate: float, momentum: float) -> None:
    """In place. fp32, elementwise, operations in the order of the formula above."""
    eta, mu = np.float32(learning_rate), np.float32(momentum)
    np.multiply(velocity, mu, out=velocity)
    np.add(velocity, mean, out=velocity)
    theta -= (velocity * mu + mean) * eta
