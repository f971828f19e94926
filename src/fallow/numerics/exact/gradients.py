"""Gradients of a batch as integers: what every sequence adds is put on one grid, so that a batch may be cut into any
micro-batches, on any machines, and summed in any order.

Source: docs/spec/exact-arithmetic.md, sections 3.4 and 18. A sequence's part is put on the grid once, and only whole
sequences are parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import product
from fallow.numerics.exact.format import Grid
from fallow.numerics.exact.gridsum import clamp_to_grid, token_bound
from fallow.numerics.exact.losses import LOSS_BITS, total_loss


@dataclass
class Gradients:
    """The sum over sequences of the gradients of their summed token losses. `totals`: counts of 2^-40, int64, by
    parameter name; `loss`: the sum of token losses in counts of 2^-32; `tokens`: how many tokens were predicted;
    `poisoned`: a loss was not finite (entries of `totals` carry their own poison)."""

    totals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    loss: int = 0
    tokens: int = 0
    poisoned: bool = False

    def total(self, name: str, like: Tensor) -> Tensor:
        """The running sum of a parameter shaped as `like`, made when first asked for."""
        if name not in self.totals:
            self.totals[name] = torch.zeros(like.shape, dtype=torch.int64, device=like.device)
        return self.totals[name]

    def add_product(self, name: str, like: Tensor, dy: Tensor, x: Grid, *, twice: bool = False) -> None:
        """Add `dy^T x` of each sequence. dy: (sequences, tokens, n) fp32, on two grids with `twice`; x: grid of
        (sequences, tokens, k)."""
        add = product.add_gradient_twice if twice else product.add_gradient
        add(self.total(name, like), dy, x)

    def add_entries(self, name: str, like: Tensor, entries: Tensor) -> None:
        """Add each sequence's entries on the gradient grid, (sequences, ...) int64, to the parameter's total."""
        total = self.total(name, like)
        for one in entries:
            formats.accumulate(total, one)

    def add_rows(self, name: str, like: Tensor, ids: Tensor, dy: Tensor) -> None:
        """Add the gradient of a table's rows `ids`, (sequences, tokens), given theirs, (sequences, tokens, n) fp32."""
        total = self.total(name, like)
        for row, one in zip(ids, dy, strict=True):
            touched, entries = embedding_gradient(row, one)
            before = total[touched]
            formats.accumulate(before, entries)
            total[touched] = before

    def add_losses(self, losses: Tensor, counted: int) -> None:
        """Add token losses, fp32, of which `counted` are of predicted tokens and the others 0."""
        total = int(total_loss(losses))
        self.poisoned = self.poisoned or total == formats.POISON
        self.loss += 0 if total == formats.POISON else total
        self.tokens += counted

    def add(self, other: Gradients) -> None:
        """Take in another part of the same batch."""
        for name, total in other.totals.items():
            formats.accumulate(self.total(name, total), total)
        self.loss, self.tokens = self.loss + other.loss, self.tokens + other.tokens
        self.poisoned = self.poisoned or other.poisoned

    def mean_loss(self) -> float:
        """Per predicted token, nats, rounded once; NaN when poisoned."""
        return float("nan") if self.poisoned or not self.tokens else self.loss / (self.tokens << LOSS_BITS)

    def means(self) -> dict[str, Tensor]:
        """The gradients of the mean loss, fp32, by name."""
        return {name: formats.gradient_mean(total, max(1, self.tokens)) for name, total in sorted(self.totals.items())}


def embedding_gradient(ids: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Section 12: one sequence's gradient of a table of embeddings, as the rows that it touches: (T,) int64 and (T, n)
    float32 to the distinct ids in ascending order (u,) and their entries on the gradient grid (u, n) int64."""
    bound = token_bound(ids.shape[0])
    rows, row_of = torch.unique(ids, return_inverse=True)
    points = torch.round(dy.double().clamp(-bound, bound) * 2.0**formats.GRADIENT_BITS)
    lost = torch.isnan(dy)
    total = torch.zeros(rows.shape[0], dy.shape[1], dtype=torch.int64, device=dy.device)
    total.index_add_(0, row_of, torch.nan_to_num(points).to(torch.int64))
    total = clamp_to_grid(total)
    if bool(lost.any()):
        poisoned = torch.zeros_like(total).index_add_(0, row_of, lost.to(torch.int64)) > 0
        total.masked_fill_(poisoned, formats.POISON)
    return rows, total
