from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


@given(
    st.sampled_from([Heads(1, 1, 1), Heads(2, 1, 6), Heads(4, 2, 16), Heads(3, 3, 5, window=2)]),
    st.integers(1, 12), st.integers(0, 999), st.floats(0.01, 3.0), st.sampled_from([1e-42, 1e-6, 1.0, 1e6]),
)  # fmt: skip
def test_each_value_is_within_its_bound(heads: Heads, tokens: int, seed: int, size: float, worth: float) -> None:
    q, k, v = inputs(heads, tokens, seed)
    q, v = q * size, v * worth
    seen = span(heads, tokens, 0, q.device)
    queries, keys, values = quantise(q), quantise(k), quantise(v)
    mixed, weights = attend(heads, queries, keys, values, seen)

    hidden = ~seen.visible(tokens)
    scores = q.double() @ k.double().mT
    true = (scores * heads.scale).masked_fill(hidden, float("-inf")).softmax(-1) @ v.double()
    # 3.2's bound of each score, then of the row
    half_q, half_k = queries.step.double()[..., None] / 2, keys.step.double()[..., None, :] / 2
    reach = half_q * k.double().abs().sum(-1)[..., None, :] + half_k * q.double().abs().sum(-1, keepdim=True)
    delta = (reach + heads.size * half_q * half_k + scores.abs() * 2.0**-23).masked_fill(hidden, 0).amax(-1)
    # and of the product with the values, whose steps are folded into the weights
    half_p = quantise(weights, values.step).step.double()[..., None] / 2
    visible = (~hidden).double()
    off = half_p * (visible @ values.q.double().abs())
    off = off + (weights.double() * values.step.double()[..., None, :] / 2).sum(-1, keepdim=True)
    largest = (visible[..., None] * v.double().abs().amax(-1)[:, :, None, :, None]).amax((-2, -1))[..., None]
    off = off + largest * (torch.expm1(2 * heads.scale * delta) + 2.0**-21)[..., None] + 2.0**-149
    assert ((mixed.double() - true).abs() <= off + true.abs() * 2.0**-24).all()


@given(
    st.sampled_from([Heads(1, 1, 4), Heads(2, 1, 6), Heads(4, 2, 16), Heads(3, 3, 5, window=2)]),
    st.integers(2, 12), st.integers(0, 999), st.sampled_from([1e-20, 1e-6, 1.0, 1e6]),
)  # fmt: skip
def test_gradients_of_all_shapes_are_those_of_float64(heads: Heads, tokens: int, seed: int, worth: float) -> None:
    q, k, v = inputs(heads, tokens, seed)
    d = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed + 1)) * worth
    seen = span(heads, tokens, 0, q.device)
    wide = [t.double().requires_grad_() for t in (q, k, v)]
    scores = (wide[0] @ wide[1].mT) * heads.scale
    (scores.masked_fill(~seen.visible(tokens), float("-inf")).softmax(-1) @ wide[2]).backward(d.double())
    grids = quantise(q), quantise(k), quantise(v)
    _, weights = attend(heads, *grids, seen)
    for one, reference in zip(attend_backward(heads, d, Seen(*grids, weights, seen)), wide, strict=True):
        assert reference.grad is not None
        assert distance(one, reference.grad) < 2e-3


def test_a_key_that_is_no_number_spoils_the_rows_that_see_it_alone() -> None:
    heads = Heads(2, 1, 4)
    q, k, v = inputs(heads, 6)
    seen = span(heads, 6, 0, q.device)
    clean, _ = attend(heads, quantise(q), quantise(k), quantise(v), seen)
    k[1, 0, 3, 2] = float("nan")
    mixed, _ = attend(heads, quantise(q), quantise(k), quantise(v), seen)
    spoilt = torch.zeros(3, 1, 2, 6, dtype=torch.bool)
    spoilt[1, :, :, 3:] = True
    assert torch.isnan(mixed[spoilt.flatten(2)]).all()
    assert torch.equal(mixed[~spoilt.flatten(2)], clean[~spoilt.flatten(2)])


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
