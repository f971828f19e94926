"""Linear layers on exact products: a weight that is quantised once and serves the forward product and the input
gradient, and the low-rank detour of LoRA beside it. Forward and backward are plain functions of grids; `llama` makes
whole models of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from fallow.numerics.exact.format import Grid, quantise, quantise_twice
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.gridsum import sequence_gradient
from fallow.numerics.exact.product import Weights, product, product_folded
from fallow.numerics.exact.product import linear as quick_product

FEW_ROWS = 16


class Weight:
    """A matrix (n, k), fp32, and its grid by rows. `name` is what its gradient is called, None when it is frozen."""

    def __init__(self, parameter: Tensor, name: str | None = None) -> None:
        self.parameter, self.name = parameter, name
        self._packed: Weights | None = None
        self._version = -1
        self._kept = False

    @property
    def packed(self) -> Weights:
        """Quantised when first asked for, and again when torch says that the parameter was written to."""
        if self._kept and self._packed is not None:
            return self._packed
        version = 0 if self.parameter.is_inference() else int(cast(Any, self.parameter)._version)
        if self._packed is None:
            self._packed = Weights(self.parameter.detach())
        elif version != self._version:
            self._packed.update(self.parameter.detach())
        self._version = version
        return self._packed

    def forget(self) -> None:
        """Drop the grid: after writes that torch does not count (through `.data` or another view of the memory)."""
        self._packed = None

    def keep_grid(self) -> None:
        """Give the parameter's memory back and live on the grid: for a model that is neither trained nor read."""
        self._packed, self._kept = self.packed, True
        self.parameter.data = self.parameter.data.new_empty(0)

    def back(self, dy: Tensor, *, twice: bool = False) -> Tensor:
        """The input gradient, dy W, fp32; with `twice` of dy on two grids."""
        packed = self.packed
        if not twice:
            return product_folded(quantise(dy, packed.step), packed)
        first, rest = quantise_twice(dy, packed.step)
        return product_folded(first, packed).add_(product_folded(rest, packed))

    def add_gradient(self, gradients: Gradients, dy: Tensor, x: Grid, *, twice: bool = False) -> None:
        """Add dy^T x, if anybody wants it."""
        if self.name is not None:
            gradients.add_product(self.name, self.parameter, dy, x, twice=twice)


@dataclass
class Detour:
    """LoRA: `scale` * up (down x). down: (rank, k), up: (n, rank)."""

    down: Weight
    up: Weight
    scale: float


@dataclass
class Affine:
    """y = W x + bias + detour, added in this order."""

    weight: Weight
    bias: Tensor | None = None
    bias_name: str | None = None
    detour: Detour | None = None

    def weights(self) -> list[Weight]:
        return [self.weight] if self.detour is None else [self.weight, self.detour.down, self.detour.up]

    def forward(self, x: Grid) -> tuple[Tensor, Grid | None]:
        """x: grid of (..., k). -> y (..., n) fp32, and what `backward` wants of the detour."""
        y = product(x, self.weight.packed)
        if self.bias is not None:
            y += self.bias.detach()
        if self.detour is None:
            return y, None
        middle = quantise(product(x, self.detour.down.packed))
        return y.add_(product(middle, self.detour.up.packed).mul_(self.detour.scale)), middle

    def quick(self, x: Tensor) -> Tensor:
        """`forward` of x: (..., k) fp32, which is quantised for every product anew: less to do for a few rows."""
        y = quick_product(x, self.weight.packed)
        if self.bias is not None:
            y += self.bias.detach()
        if self.detour is None:
            return y
        middle = quick_product(x, self.detour.down.packed)
        return y.add_(quick_product(middle, self.detour.up.packed).mul_(self.detour.scale))

    def backward(
        self, dy: Tensor, x: Grid, middle: Grid | None, gradients: Gradients, *, twice: bool = False
    ) -> Tensor:
        """dy: (sequences, tokens, n) fp32, on two grids with `twice`. Adds the parameters' gradients and returns dx."""
        turn = self.learn(dy, x, middle, gradients, twice=twice)
        dx = self.weight.back(dy, twice=twice)
        return dx if turn is None or self.detour is None else dx.add_(self.detour.down.back(turn))

    def learn(
        self, dy: Tensor, x: Grid, middle: Grid | None, gradients: Gradients, *, twice: bool = False
    ) -> Tensor | None:
        """The parameters' gradients alone. Returns the gradient at the detour's middle."""
        self.weight.add_gradient(gradients, dy, x, twice=twice)
        if self.bias is not None and self.bias_name is not None:
            gradients.add_entries(self.bias_name, self.bias, sequence_gradient(dy.double()))
        if self.detour is None or middle is None:
            return None
        scaled = dy * self.detour.scale
        self.detour.up.add_gradient(gradients, scaled, middle, twice=twice)
        turn = self.detour.up.back(scaled, twice=twice)
        self.detour.down.add_gradient(gradients, turn, x)
        return turn


def answers(layers: Sequence[Affine], x: Tensor) -> list[Tensor]:
    """What each of `layers` makes of x, (..., rows, k) fp32, for models that only answer."""
    if x.shape[:-1].numel() <= FEW_ROWS:
        return [layer.quick(x) for layer in layers]
    grid = quantise(x)
    return [layer.forward(grid)[0] for layer in layers]
