"""The gradient of a table of embeddings, in any order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import even

from fallow.numerics.exact import embedding as e
from fallow.numerics.exact import format as formats


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_gradient_adds_up_in_any_order(ids: list[int], seed: int, random) -> None:
    dy = even(-2, 2, 3 * len(ids), seed).view(-1, 3)
    rows, total = e.embedding_gradient(torch.tensor(ids), dy)
    order = list(range(len(ids)))
    random.shuffle(order)
    again = e.embedding_gradient(torch.tensor(ids)[order], dy[order])
    assert torch.equal(rows, again[0])
    assert torch.equal(total, again[1])
    assert rows.tolist() == sorted(set(ids))
    dense = torch.zeros(7, 3, dtype=torch.float64).index_add_(0, torch.tensor(ids), dy.double())
    assert (total.double() * 2.0**-formats.GRADIENT_BITS - dense[rows]).abs().max() <= len(ids) * 2.0**-41


def test_clamps_and_poison() -> None:
    dy = torch.tensor([[1e30, 1.0], [float("nan"), -float("inf")], [2.0, 3.0]])
    rows, total = e.embedding_gradient(torch.tensor([5, 2, 2]), dy)
    assert rows.tolist() == [2, 5]
    assert total.tolist() == [[formats.POISON, -(2**53)], [2**53, 1 << 40]]
