"""Losses of packed rows by transformers: position ids that begin anew with each document, from which its masks follow.

Not every network heeds them: one whose state runs through the row, or that knows places by other means, would let
documents see each other. `keeps_apart` finds out by trying.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fallow.numerics.exact.losses import IGNORED
from fallow.numerics.exact.sequences import Sequences, positions, sequences_of

_TRIED = 8
_ALIKE = 1e-4
"""Of the largest logit: documents side by side give what they give alone, but for rounding."""


def losses_of(network: Any, batch: Sequences, reduction: str) -> Tensor:
    """Cross entropy of the learned tokens, nats: their "mean" or "sum"."""
    logits = _logits(network, batch)[:, : batch.targets.shape[1]]  # (sequences, tokens - 1, vocabulary), fp32
    wide = logits.reshape(-1, logits.shape[-1])
    return functional.cross_entropy(wide, batch.targets.reshape(-1), reduction=reduction, ignore_index=IGNORED)


def _logits(network: Any, batch: Sequences) -> Tensor:
    if batch.first is None:
        return network(input_ids=batch.tokens, use_cache=False).logits
    places = positions(batch.first, batch.tokens.shape[1], batch.tokens.device)
    return network(input_ids=batch.tokens, position_ids=places, use_cache=False).logits


@torch.no_grad()
def keeps_apart(network: Any) -> bool:
    """Whether two documents in one row give the logits that each gives alone."""
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return False
    half = _TRIED // 2
    tokens = torch.arange(_TRIED)[None] % network.get_input_embeddings().weight.shape[0]
    first = torch.tensor([[0] * half + [half] * half])
    together = _logits(network, Sequences(tokens, None, first))
    alone = torch.cat([_logits(network, sequences_of(part)) for part in tokens.split(half, dim=1)], dim=1)
    return bool((together - alone).abs().max() <= _ALIKE * alone.abs().max())
