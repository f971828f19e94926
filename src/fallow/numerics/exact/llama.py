"""A decoder-only transformer of Llama's form on exact operators: losses and gradients of sequences, and logits of
pieces of text with caches. It shares its parameters with the model that it was made from (`exactify`). There is no
autograd in it.

Source: docs/spec/exact-arithmetic.md, section 17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fallow.numerics.exact import attention
from fallow.numerics.exact.attention import Heads
from fallow.numerics.exact.blocks import AttentionTape, Block, GatedTape, Norm
from fallow.numerics.exact.cache import Cache
from fallow.numerics.exact.format import quantise
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.linear import Affine, Weight, answers
from fallow.numerics.exact.losses import IGNORED, cross_entropy, token_losses
from fallow.numerics.exact.rotary import tables
from fallow.numerics.exact.sequences import Sequences, positions, sequences_of

Observer = Callable[[str, Tensor], None]
"""Told of each layer's result by name, in order: what commitments to a step's operators are made of."""
LOGIT_ROWS, LOGITS = 64, 1 << 22
"""How many rows of logits are held at a time, and how many logits where whole sequences must be; changes no bit."""


@dataclass
class Continuation:
    """The next `tokens`, (count,) int64, of a text whose earlier ones are in `caches`, one per layer."""

    tokens: Tensor
    caches: list[Cache]


@dataclass
class _Tape:
    layers: list[tuple[AttentionTape, GatedTape]]
    last: Tensor


@dataclass
class ExactLlama:
    """`trainable` are the parameters whose gradients are taken, by name."""

    embedding: Weight
    blocks: list[Block]
    norm: Norm
    head: Affine
    heads: Heads
    frequencies: Tensor
    trainable: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    # training ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def add_gradients(self, batch: Sequences | Tensor, gradients: Gradients, observe: Observer | None = None) -> None:
        """Add what sequences, or whole ones (sequences, tokens) int64, give: the losses of predicting each learned
        token from those before it in its document, and the gradients of their sum. How sequences are grouped and
        ordered changes nothing."""
        tell, batch = observe or _nobody, sequences_of(batch)
        tokens = batch.inputs
        tape = self._forward(batch, tell, keep=True)
        dx = self._loss(tape.last, batch.targets, gradients)
        tell("d_norm", dx)
        angles = self._angles(positions(batch.starts, tokens.shape[1], tokens.device))
        for at in range(len(self.blocks) - 1, -1, -1):
            block, (attention_tape, gated_tape) = self.blocks[at], tape.layers.pop()
            dx = block.gated.backward(dx, gated_tape, gradients)
            want = at > 0 or self.embedding.name is not None
            back = block.attention.backward(dx, angles, attention_tape, gradients, want=want)
            if back is None:
                return
            dx = back
            tell(f"d_layer/{at}", dx)
        if self.embedding.name is not None:
            gradients.add_rows(self.embedding.name, self.embedding.parameter, tokens, dx)

    @torch.no_grad()
    def losses(self, batch: Sequences | Tensor) -> Tensor:
        """The losses of predicting each token but the first, +0 for those that are not learned: (sequences,
        tokens - 1) fp32, nats."""
        batch = sequences_of(batch)
        x = self._forward(batch, _nobody, keep=False).last
        rows = self.norm.forward(x)[0].flatten(0, 1)
        wanted = batch.targets.flatten()
        found = [
            token_losses(self.head.forward(quantise(part))[0], targets)
            for part, targets in zip(rows.split(LOGIT_ROWS), wanted.split(LOGIT_ROWS), strict=True)
        ]
        return torch.cat(found).view(batch.tokens.shape[0], -1)

    # generation -------------------------------------------------------------------------------------------------------

    def new_caches(self) -> list[Cache]:
        """Empty caches for one text."""
        return [Cache(self.heads, self.embedding.parameter.device) for _ in self.blocks]

    @torch.no_grad()
    def read(self, pieces: Sequence[Continuation], since: int | None = None) -> Tensor:
        """Take in a piece of each of several texts, adding to their caches. -> the logits after each piece's last
        token, (pieces, vocabulary) fp32; with `since`, after each token from that place of a single piece on. Neither
        the company of others nor where a text was cut changes a bit."""
        tokens = torch.cat([piece.tokens for piece in pieces])
        counts = [len(piece.tokens) for piece in pieces]
        places = [torch.arange(len(p.tokens), device=tokens.device) + p.caches[0].length for p in pieces]
        angles = self._angles(torch.cat(places))
        x = self._embed(tokens[None])
        for at, block in enumerate(self.blocks):
            caches = [(piece.caches[at], count) for piece, count in zip(pieces, counts, strict=True)]
            x = block.gated.step(block.attention.step(x, angles, caches))
        wanted = x[0, torch.tensor(counts, device=tokens.device).cumsum(0) - 1] if since is None else x[0, since:]
        return answers((self.head,), self.norm.forward(wanted)[0])[0]

    # the parts --------------------------------------------------------------------------------------------------------

    def weights(self) -> list[Weight]:
        """All matrices, each once."""
        found = [self.embedding, *self.head.weights()]
        found += [weight for block in self.blocks for linear in block.linears() for weight in linear.weights()]
        return list(dict.fromkeys(found))

    def forget(self) -> None:
        """Quantise all matrices anew when next wanted: after writes to parameters that torch does not count."""
        for weight in self.weights():
            weight.forget()

    def keep_grids(self) -> None:
        """Give the memory of all fp32 matrices but the embedding's back, for good: the model can answer and no more, on
        half of it."""
        for weight in self.weights():
            if weight is not self.embedding:
                weight.keep_grid()

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.embedding.parameter.detach()[tokens]

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return tables(positions, self.frequencies)

    def _forward(self, batch: Sequences, tell: Observer, *, keep: bool) -> _Tape:
        tokens, starts = batch.inputs, batch.starts
        length = tokens.shape[1]
        angles = self._angles(positions(starts, length, tokens.device))
        kinds = {block.attention.heads for block in self.blocks}
        spans = {heads: attention.span(heads, length, 0, tokens.device, starts) for heads in kinds}
        x = self._embed(tokens)
        layers: list[tuple[AttentionTape, GatedTape]] = []
        for at, block in enumerate(self.blocks):
            x, attention_tape = block.attention.forward(x, angles, spans[block.attention.heads])
            x, gated_tape = block.gated.forward(x)
            if keep:
                layers.append((attention_tape, gated_tape))
            tell(f"layer/{at}", x)
        return _Tape(layers, x)

    def _loss(self, x: Tensor, targets: Tensor, gradients: Gradients) -> Tensor:
        """Adds the losses and the head's and the last norm's gradients. -> dx."""
        h, scale = self.norm.forward(x)
        if self.head.weight.name is None and self.head.detour is None:
            rows, wanted = h.flatten(0, 1)[None], targets.flatten()[None]
            parts = zip(rows.split(LOGIT_ROWS, 1), wanted.split(LOGIT_ROWS, 1), strict=True)
        else:  # each sequence's gradient is put on the grid as a whole
            some = max(1, LOGITS // (targets.shape[1] * self.head.weight.parameter.shape[0]))
            parts = zip(h.split(some), targets.split(some), strict=True)
        found = [self._loss_of(part, ids, gradients).flatten(0, 1) for part, ids in parts]
        return self.norm.backward(torch.cat(found).view_as(h), x, scale, gradients)

    def _loss_of(self, rows: Tensor, targets: Tensor, gradients: Gradients) -> Tensor:
        grid = quantise(rows)
        logits, middle = self.head.forward(grid)
        losses, d_logits = cross_entropy(logits, targets, overwrite=True)
        gradients.add_losses(losses, int((targets != IGNORED).sum()))
        # A row of d_logits is a few large entries and tens of thousands of small ones, which one grid would round to
        # nothing although their sum is most of the gradient: what the first grid leaves over goes onto a second.
        return self.head.backward(d_logits, grid, middle, gradients, twice=True)


def _nobody(_: str, __: Tensor) -> None:
    """Nobody observes."""
