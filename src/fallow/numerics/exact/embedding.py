"""The exact gradient of a table of embeddings. Source: docs/spec/exact-arithmetic.md, section 12."""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact.format import GRADIENT_BITS, POISON
from fallow.numerics.exact.gridsum import clamp_to_grid, token_bound


def embedding_gradient(ids: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence's gradient of the table, as the rows that it touches: (T,) int64 and (T, n) float32 to the distinct
    ids in ascending order (u,) and their entries on the gradient grid (u, n) int64."""
    bound = token_bound(ids.shape[0])
    rows, row_of = torch.unique(ids, return_inverse=True)
    points = torch.round(dy.double().clamp(-bound, bound) * 2.0**GRADIENT_BITS)
    lost = torch.isnan(dy)
    total = torch.zeros(rows.shape[0], dy.shape[1], dtype=torch.int64, device=dy.device)
    total.index_add_(0, row_of, torch.nan_to_num(points).to(torch.int64))
    total = clamp_to_grid(total)
    if bool(lost.any()):
        poisoned = torch.zeros_like(total).index_add_(0, row_of, lost.to(torch.int64)) > 0
        total.masked_fill_(poisoned, POISON)
    return rows, total
