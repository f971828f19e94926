"""Exact generation: the same tokens and the same hash of the logits, whatever else is in the batch, however the prompt
is cut, with a cache or by replay in one pass, from the start or resumed anywhere.

A draw is named by the seed and by the token's place in the text (prompt and answer), so an answer that is cut and
resumed elsewhere goes on the same way. Source: docs/spec/exact-arithmetic.md, section 21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from blake3 import blake3
from torch import Tensor

from fallow.numerics.exact.cache import Cache
from fallow.numerics.exact.choose import sample
from fallow.numerics.exact.llama import Continuation, ExactLlama
from fallow.numerics.fingerprint import tensors_hash
from fallow.units import Digest

PIECE_TOKENS = 256
"""How much of a prompt is read at a time; changes no bit."""
STREAM = 1
"""The purpose of generation's draws."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: `temperature` 0 takes the likeliest; else of the `top_k` likeliest (0: all) and of those
    the fewest that weigh `top_p` together (1: all), one is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def choose(self, logits: Tensor, position: int) -> int:
        """The token at `position` after `logits` (vocabulary,) fp32."""
        k, p = self.top_k or None, self.top_p if self.top_p < 1.0 else None
        return int(sample(logits, self.temperature, self.seed, STREAM, position, k=k, p=p))


class LogitShape(Protocol):
    """What else was asked of an answer, beside its sampling: a form, penalties. Neither method raises, since other
    texts are in the same pass."""

    def shaped(self, logits: Tensor) -> Tensor:
        """What the next token is chosen from, given the model's `logits` (vocabulary,) fp32, which stay as they are."""
        ...

    def take(self, token: int) -> None:
        """The text goes on with `token`."""
        ...


@dataclass
class GrowingText:
    """A text that is being continued. `tokens`: the prompt and what was made so far; `made`: how many of them were
    made here; `marks`: for each of those the hash of the logits that the model gave for it."""

    tokens: list[int]
    sampling: Sampling = Sampling()
    shape: LogitShape | None = None
    made: int = 0
    marks: list[Digest] = field(default_factory=list[Digest])
    caches: list[Cache] = field(default_factory=list[Cache])

    @property
    def read(self) -> int:
        """How many tokens the caches hold."""
        return self.caches[0].length if self.caches else 0

    def logits_hash(self) -> Digest:
        """One hash of all logits that tokens were chosen from, in order."""
        return joined_marks(self.marks)


def joined_marks(marks: Sequence[Digest]) -> Digest:
    """The hash of a series of logits hashes."""
    return Digest(blake3(b"fallow logits 1\n" + b"".join(marks)).digest())


def mark_of(logits: Tensor) -> Digest:
    """The hash of one row of logits (vocabulary,) fp32; every NaN counts as the same one."""
    return tensors_hash({"logits": logits.cpu().numpy()})


def advance(
    model: ExactLlama, texts: Sequence[GrowingText], piece_tokens: int = PIECE_TOKENS, *, mark: bool = False
) -> None:
    """One pass over the model for all of `texts`: those whose prompt is not read yet take in its next piece, and each
    of which all is read gets its next token. `mark`: also hash the logits."""
    pieces: list[Continuation] = []
    device = model.embedding.parameter.device
    for text in texts:
        if not text.caches:
            text.caches = model.new_caches()
        part = text.tokens[text.read : text.read + piece_tokens]
        pieces.append(Continuation(torch.tensor(part, dtype=torch.int64, device=device), text.caches))
    logits = model.read(pieces)
    for text, row in zip(texts, logits, strict=True):
        if text.read < len(text.tokens):
            continue
        if mark:
            text.marks.append(mark_of(row))
        token = text.sampling.choose(row if text.shape is None else text.shape.shaped(row), len(text.tokens))
        text.tokens.append(token)
        text.made += 1
        if text.shape is not None:
            text.shape.take(token)


def generate(
    model: ExactLlama,
    texts: Sequence[GrowingText],
    max_tokens: int,
    ends: frozenset[int] = frozenset(),
    *,
    mark: bool = False,
) -> None:
    """Continue each of `texts` until a token of `ends` (which it keeps) or `max_tokens` new ones."""
    active = [text for text in texts if max_tokens > 0]
    while active:
        advance(model, active, mark=mark)
        active = [t for t in active if t.made < max_tokens and not (t.made and t.tokens[-1] in ends)]


def replay(
    model: ExactLlama, tokens: Sequence[int], start: int, sampling: Sampling, shape: LogitShape | None = None
) -> tuple[list[int], list[Digest]]:
    """What the model chooses at each position from `start` on, given the tokens before it (`shape`: as it was at
    `start`), and the hashes of the logits: one pass without a cache to check an answer with. An honest answer equals
    the choices."""
    row = torch.tensor(tokens[:-1], dtype=torch.int64, device=model.embedding.parameter.device)
    logits = model.read([Continuation(row, model.new_caches())], since=start - 1)
    chosen: list[int] = []
    for position, one in enumerate(logits, start):
        chosen.append(sampling.choose(one if shape is None else shape.shaped(one), position))
        if shape is not None:
            shape.take(tokens[position])
    return chosen, [mark_of(one) for one in logits]
