"""Sequences that a model learns from: which tokens it is to predict, and where in a sequence documents begin.

Source: docs/spec/exact-arithmetic.md, section 18.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fallow.numerics.exact.losses import IGNORED


@dataclass(frozen=True)
class Sequences:
    """`tokens`: (sequences, tokens) int64. `learned`, bool of that shape: which tokens are to be predicted from those
    before them; None means all. `first`, int64 of that shape: the place of the first token of each token's document,
    which sees nothing before it and counts its positions from there; None means that a sequence is one document. A
    sequence's first token is predicted by nobody, and nor should a document's be."""

    tokens: Tensor
    learned: Tensor | None = None
    first: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """What a model reads: (sequences, tokens - 1) int64."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        """What it is to predict there, IGNORED where nothing."""
        wanted = self.tokens[:, 1:]
        return wanted if self.learned is None else wanted.masked_fill(~self.learned[:, 1:], IGNORED)

    @property
    def starts(self) -> Tensor | None:
        """The first place of each input's document, None where all are the sequences' own."""
        return None if self.first is None else self.first[:, :-1]

    @property
    def counted(self) -> int:
        """How many tokens are predicted."""
        return self.tokens[:, 1:].numel() if self.learned is None else int(self.learned[:, 1:].sum())


def sequences_of(batch: Sequences | Tensor) -> Sequences:
    """Whole sequences, (sequences, tokens) int64, of which every token but the first is learned; or what they are."""
    return batch if isinstance(batch, Sequences) else Sequences(batch)


def positions(starts: Tensor | None, length: int, device: torch.device) -> Tensor:
    """The positions of `length` tokens in their documents: (length,), or with `starts` of its shape."""
    places = torch.arange(length, device=device)
    return places if starts is None else places - starts
