"""What is asked of an answer beside temperature and top_p: a form, penalties, a bias. They change what a token is
chosen from, never what the model gives. Source: docs/spec/exact-arithmetic.md, section 21."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate
from fallow.workloads.engines import SamplingSettings
from fallow.workloads.guide import Guide, Guides, from_model
from fallow.workloads.model import LoadedModel

HUNDREDTHS = 100


class Shaping:
    """One answer's (a `LogitShape` of exact generation). What goes wrong waits in `check`."""

    def __init__(
        self, request: Generate, sampling: SamplingSettings, guide: Guide | None, vocabulary: int, given: Sequence[int]
    ) -> None:
        """`given`: the tokens of the answer that were made before. Errors: E1904 for a bias of a token that the model
        has not, or of one token twice."""
        self._frequency, self._presence = sampling.frequency_penalty, sampling.presence_penalty
        self._guide = guide
        self._error: FallowError | None = None
        self._bias = dict(request.bias)
        if len(self._bias) != len(request.bias) or any(token >= vocabulary for token in self._bias):
            raise fail("E1904", f"bias names a token twice, or one that is none of the model's {vocabulary:,}.")
        self._counts = Counter(given)

    @property
    def complete(self) -> bool:
        """The answer has the form that was asked for, and nothing can follow."""
        return self._guide is not None and self._guide.complete

    def check(self) -> None:
        """Errors: E1904 when the answer cannot go on in its form."""
        if self._error is not None:
            raise self._error

    def shaped(self, logits: Tensor) -> Tensor:
        """The logits of tokens with a bias, or that the answer has already, moved: each in one binary64 addition that
        is rounded to binary32. Those of tokens that the form does not allow are -infinity."""
        moved = self._moves()
        if moved:
            logits = logits.clone()
            places = torch.tensor(list(moved), dtype=torch.int64, device=logits.device)
            by = torch.tensor(list(moved.values()), dtype=torch.float64, device=logits.device)
            logits[places] = (logits[places].double() + by).float()
        if self._guide is None or self._error is not None:
            return logits
        try:
            allowed = torch.from_numpy(self._guide.mask()).to(logits.device)
        except FallowError as error:
            self._error = error
            return logits
        return logits.masked_fill(~allowed, -torch.inf)

    def take(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._counts[token] += 1
        if self._guide is not None and self._error is None and not self._guide.take(token):
            self._error = fail("E1904", "The model has no token left that fits the guide.")

    def _moves(self) -> dict[int, float]:
        moves = {token: hundredths / HUNDREDTHS for token, hundredths in self._bias.items()}
        if self._frequency or self._presence:
            for token, count in self._counts.items():
                moves[token] = moves.get(token, 0.0) - (self._frequency * count + self._presence)
        return moves


def guides_of(model: LoadedModel) -> Guides:
    """What follows guides in a model's tokens."""
    vocabulary = int(model.network.config.vocab_size)
    return Guides(lambda: from_model(model.tokenizer, vocabulary, model.ends), vocabulary)


def open_shaping(guides: Guides, request: Generate, sampling: SamplingSettings, given: Sequence[int]) -> Shaping:
    """What `request` asks beside sampling, after the `given` tokens of its answer. Errors: E1904."""
    return Shaping(request, sampling, guides.open(request), guides.vocabulary, given)
