"""Documents beside each other in one row are to a model what each is alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.numerics.exact.small_llama import distance, small_llama, some_tokens
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.sequences import Sequences, positions, sequences_of
from fallow.numerics.exact.training import gradients_of

LENGTHS = ((5, 4, 8), (1, 16), (17,))
BOUND = 0.002


def packed(lengths: tuple[tuple[int, ...], ...] = LENGTHS) -> tuple[Sequences, list[Tensor]]:
    """Rows of documents of these lengths, of which all but the first tokens are learned, and the documents alone."""
    tokens = some_tokens(len(lengths), sum(lengths[0]))
    learned, first = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)
    alone: list[Tensor] = []
    for row, sizes in enumerate(lengths):
        at = 0
        for size in sizes:
            learned[row, at], first[row, at : at + size] = False, at
            alone.append(tokens[row : row + 1, at : at + size])
            at += size
    return Sequences(tokens, learned, first), alone


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"head_dim": 12}])
def test_losses_are_the_same_bits_as_alone(changes: dict[str, Any]) -> None:
    model = exactify(small_llama(**changes))
    batch, alone = packed()
    losses = model.losses(batch)
    wanted = [model.losses(part).flatten() for part in alone if part.shape[1] > 1]
    assert torch.equal(losses[batch.targets >= 0], torch.cat(wanted))
    assert not losses[batch.targets < 0].any()
    with kernels.paused():
        assert torch.equal(model.losses(batch), losses)


def test_gradients_are_those_of_the_documents_alone() -> None:
    model = exactify(small_llama())
    batch, alone = packed()
    found, wanted = gradients_of(model, batch), Gradients()
    for part in alone:
        if part.shape[1] > 1:
            wanted.add(gradients_of(model, part))
    assert (found.tokens, found.loss) == (wanted.tokens, wanted.loss) == (batch.counted, found.loss)
    for name, gradient in found.means().items():
        assert distance(gradient, wanted.means()[name].double()) < BOUND, name
    with kernels.paused():
        again = gradients_of(model, batch)
    assert all(torch.equal(again.totals[name], total) for name, total in found.totals.items())


def test_what_is_not_learned_moves_nothing() -> None:
    model, tokens = exactify(small_llama()), some_tokens(2, 9)
    learned = torch.zeros_like(tokens, dtype=torch.bool)
    learned[:, 4] = True
    batch = Sequences(tokens, learned)
    found, other = gradients_of(model, batch), gradients_of(model, Sequences(tokens[:, :5], learned[:, :5]))
    assert found.tokens == 2
    assert found.loss == other.loss
    nothing = gradients_of(model, Sequences(tokens, torch.zeros_like(learned)))
    assert (nothing.tokens, nothing.loss) == (0, 0)
    assert not any(total.any() for total in nothing.totals.values())


def test_a_whole_sequence_is_one_document() -> None:
    model, tokens = exactify(small_llama()), some_tokens(2, 9)
    said = Sequences(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens))
    one, other = gradients_of(model, tokens), gradients_of(model, said)
    assert all(torch.equal(one.totals[name], other.totals[name]) for name in one.totals)
    assert sequences_of(said) is said
    assert (said.counted, sequences_of(tokens).counted) == (16, 16)


def test_positions_begin_anew() -> None:
    cpu = torch.device("cpu")
    assert positions(None, 3, cpu).tolist() == [0, 1, 2]
    assert positions(torch.tensor([[0, 0, 2]]), 3, cpu).tolist() == [[0, 1, 0]]


def test_a_window_does_not_reach_into_the_document_before() -> None:
    """Where layers see but so far, they see no further back than their document either."""
    from fallow.numerics.exact.attention import Heads, span

    seen = span(Heads(2, 1, 8, window=3), 5, 0, torch.device("cpu"), torch.tensor([[0, 0, 0, 3, 3], [0, 0, 0, 0, 0]]))
    assert seen.start[0, 0].tolist() == [0, 0, 0, 3, 3] * 2
    assert seen.start[1, 0].tolist() == [0, 0, 0, 1, 2] * 2
    assert seen.stop.tolist() == [1, 2, 3, 4, 5] * 2
