"""The inner optimiser: AdamW on one worker's own data, and its state as a file that the next round continues from.

The learning rate follows the global inner step, counted from the job's start, so that a worker who joins late does not
start warming up again.

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2; betas as in DiLoCo's experiments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fallow.errors import fail
from fallow.numerics import layout
from fallow.numerics.layout import Array, Layout, TensorShape

BETA_1, BETA_2, EPSILON = 0.9, 0.95, 1e-8
FINAL_RATE = 0.1
"""The learning rate ends at this part of its top."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `top` over `warmup` steps, then half a cosine down to FINAL_RATE of it at step `total`."""

    top: float
    warmup: int
    total: int

    def rate(self, step: int) -> float:
        """The learning rate of global inner step `step`, from 0."""
        if step < self.warmup:
            return self.top * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.top * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done)))


class AdamW:
    """AdamW over named parameters, each step in the same order of operations. `steps` counts the steps that its moments
    have seen."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(sorted(parameters.items()))
        self._means = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        self.steps = 0

    def clip(self, limit: float) -> float:
        """Scale the gradients down to a common norm of at most `limit`; 0 leaves them. Returns the norm before."""
        norms = [float(torch.linalg.vector_norm(g)) for g in self._gradients().values()]
        norm = math.sqrt(sum(n * n for n in norms))
        if limit > 0 and norm > limit:
            for gradient in self._gradients().values():
                gradient.mul_(limit / norm)
        return norm

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self._parameters.items() if p.grad is not None}

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Apply the gradients and forget them."""
        self.steps += 1
        first, second = 1 - BETA_1**self.steps, 1 - BETA_2**self.steps
        for name, gradient in self._gradients().items():
            parameter, mean, square = self._parameters[name], self._means[name], self._squares[name]
            mean.mul_(BETA_1).add_(gradient * (1 - BETA_1))
            square.mul_(BETA_2).add_(gradient * gradient * (1 - BETA_2))
            if decay:
                parameter.mul_(1 - rate * decay)
            parameter.sub_((mean / first) / ((square / second).sqrt() + EPSILON) * rate)
            parameter.grad = None

    def save(self, path: Path) -> None:
        tensors: dict[str, Array] = {"step": np.asarray([self.steps], dtype=np.int64)}
        for name in self._parameters:
            tensors[f"mean/{name}"], tensors[f"square/{name}"] = self._means[name].numpy(), self._squares[name].numpy()
        layout.write(path, self._layout(), tensors)

    def load(self, path: Path) -> None:
        """Continue from the state in `path`. Errors: E1705 when it is no state of this optimiser for these
        parameters."""
        tensors = layout.read(path, self._layout())
        if tensors is None or not all(bool(np.isfinite(value).all()) for value in tensors.values()):
            raise fail("E1705", "The carried optimiser state does not fit the model.")
        self.steps = int(tensors["step"][0])
        if not 0 <= self.steps <= 1 << 40:
            raise fail("E1705", "The carried optimiser state does not fit the model.")
        for name in self._parameters:
            self._means[name].copy_(torch.from_numpy(np.array(tensors[f"mean/{name}"])))
            self._squares[name].copy_(torch.from_numpy(np.array(tensors[f"square/{name}"])))

    def _layout(self) -> Layout:
        tensors: dict[str, tuple[str, TensorShape]] = {"step": ("I64", (1,))}
        for name, parameter in self._parameters.items():
            tensors[f"mean/{name}"] = tensors[f"square/{name}"] = ("F32", tuple(parameter.shape))
        return layout.layout(tensors, "adamw 1")
