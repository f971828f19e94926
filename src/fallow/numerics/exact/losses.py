"""Exact cross-entropy and its gradient. Source: docs/spec/exact-arithmetic.md, section 11."""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.format import POISON
from fallow.numerics.exact.functions import log64
from fallow.numerics.exact.softmax import WEIGHT_BITS, reciprocal, weights_of

IGNORED = -100
"""The target of a token that has no loss."""
LOSS_BITS, LOSS_LIMIT = 32, 2.0**10
"""Losses are added on the grid of step 2^-32, each clamped to 2^10: 2^20 of them stay below 2^62."""


def cross_entropy(logits: Tensor, targets: Tensor, *, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Each token's loss, (..., V) float32 and (...) int64 to (...) float32, and the gradient of their sum, (..., V)
    float32. +0 for both where the target is -100. With `overwrite` the gradient may take the place of the logits, which
    are then lost. Raises ValueError for a target outside the vocabulary."""
    counted, known = _known(logits, targets)
    if kernels.serve(logits):
        gradient = logits if overwrite and logits.is_contiguous() else torch.empty(logits.shape)
        return kernels.cross_entropy(logits, known.masked_fill(~counted, -1), gradient), gradient
    weights, total, largest = weights_of(logits)
    losses = _losses(logits, known, total, largest)
    slope = weights.double() * reciprocal(total)[..., None]
    slope.scatter_add_(-1, known[..., None], torch.full_like(slope[..., :1], -1.0))
    gradient = slope.float().masked_fill(~counted[..., None], 0.0)
    return losses.masked_fill(~counted, 0.0), gradient


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The losses alone."""
    counted, known = _known(logits, targets)
    if kernels.serve(logits):
        return kernels.cross_entropy(logits, known.masked_fill(~counted, -1), None)
    _, total, largest = weights_of(logits)
    return _losses(logits, known, total, largest).masked_fill(~counted, 0.0)


def _known(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens have a loss, and the targets with 0 for the others."""
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets {tuple(targets.shape)} for logits {tuple(logits.shape)}")
    counted = targets != IGNORED
    known = targets.masked_fill(~counted, 0)
    if bool(((known < 0) | (known >= logits.shape[-1])).any()):
        raise ValueError(f"a target lies outside the vocabulary of {logits.shape[-1]}")
    return counted, known


def _losses(logits: Tensor, known: Tensor, total: Tensor, largest: Tensor) -> Tensor:
    below = logits.gather(-1, known[..., None])[..., 0].double() - largest
    return (log64(total * 2.0**-WEIGHT_BITS) - below).float()


def total_loss(losses: Tensor) -> Tensor:
    """The sum of up to 2^20 losses on the grid of step 2^-32, an int64 scalar: sums of parts add up to the sum of the
    whole. POISON if one is NaN."""
    points = torch.round(losses.double().clamp(-LOSS_LIMIT, LOSS_LIMIT) * 2.0**LOSS_BITS)
    total = torch.nan_to_num(points).to(torch.int64).sum()
    return torch.where(torch.isnan(losses).any(), POISON, total)
