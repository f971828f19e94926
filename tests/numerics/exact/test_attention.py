from __future__ import annotations

import pytest
import torch
from tests.numerics.exact.small_llama import distance
from torch import Tensor

from fallow.numerics.exact.attention import Heads, Seen, attend, attend_backward, by_key_head, by_token, span
from fallow.numerics.exact.format import quantise


def inputs(heads: Heads, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = (heads.group * tokens, tokens, tokens)
    q, k, v = (torch.randn(3, heads.keys, n, heads.size, generator=generator) for n in rows)
    return q, k, v


@pytest.mark.parametrize("heads", [Heads(4, 2, 16), Heads(3, 3, 8), Heads(4, 1, 12, window=3)])
def test_values_and_gradients_are_those_of_float64(heads: Heads) -> None:
    q, k, v = inputs(heads, 9)
    d = torch.randn(q.shape, generator=torch.Generator().manual_seed(9)) * 1e-3
    d[:, :, -1] = 0
    wide = [t.double().requires_grad_() for t in (q, k, v)]
    seen = span(heads, 9, 0, q.device)
    scores = (wide[0] @ wide[1].mT) * heads.scale
    true = scores.masked_fill(~seen.visible(9), float("-inf")).softmax(-1) @ wide[2]
    true.backward(d.double())
    grids = quantise(q), quantise(k), quantise(v)
    mixed, weights = attend(heads, *grids, seen)
    assert distance(mixed, true.detach()) < 3e-4
    for one, reference in zip(attend_backward(heads, d, Seen(*grids, weights, seen)), wide, strict=True):
        assert reference.grad is not None
        assert distance(one, reference.grad) < 6e-4


def test_layouts_are_each_others_inverse() -> None:
    heads = Heads(6, 2, 4)
    x = torch.randn(2, 5, 6, 4)
    assert torch.equal(by_token(heads, by_key_head(heads, x)), x.flatten(2))


def test_a_row_is_the_same_among_fewer_keys() -> None:
    heads = Heads(4, 2, 16)
    q, k, v = inputs(heads, 50)
    whole, _ = attend(heads, quantise(q), quantise(k), quantise(v), span(heads, 50, 0, q.device))
    rows = q.view(3, 2, 2, 50, 16)[:, :, :, 30].contiguous()
    part, _ = attend(
        heads, quantise(rows), quantise(k[:, :, :31]), quantise(v[:, :, :31]), span(heads, 1, 30, q.device)
    )
    assert torch.equal(part, whole.view(3, 2, 2, 50, 16)[:, :, :, 30])
