from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import even

from fallow.numerics.exact.format import GRADIENT_BITS, POISON, quantise
from fallow.numerics.exact.gradients import Gradients, embedding_gradient


def test_parts_add_up_to_the_whole_and_poison_stays() -> None:
    like, one, other = torch.zeros(4, 3), Gradients(), Gradients()
    dy, x = torch.randn(2, 5, 4), quantise(torch.randn(2, 5, 3))
    one.add_product("w", like, dy, x)
    dy[1, 2, 3] = math.nan
    other.add_product("w", like, dy, x)
    other.add(one)
    total = other.totals["w"]
    assert (total[3] == POISON).all()
    assert torch.equal(total[:3], 2 * one.totals["w"][:3])
    assert other.means()["w"][3].isnan().all()


def test_rows_and_entries_are_summed_as_integers() -> None:
    table, gradients = torch.zeros(5, 2), Gradients()
    ids, dy = torch.tensor([[1, 4, 1], [0, 1, 1]]), torch.ones(2, 3, 2)
    gradients.add_rows("e", table, ids, dy)
    gradients.add_rows("e", table, ids[:1], dy[:1] * math.nan)
    assert (gradients.totals["e"][[1, 4]] == POISON).all()
    assert gradients.totals["e"][0].tolist() == [1 << 40, 1 << 40]
    gradients.add_entries("n", torch.zeros(2), torch.tensor([[1, 2], [3, POISON]]))
    assert gradients.totals["n"].tolist() == [4, POISON]


def test_losses_are_counted_exactly_and_a_nan_poisons() -> None:
    gradients = Gradients()
    gradients.add_losses(torch.tensor([1.5, 2.25]), 2)
    gradients.add_losses(torch.tensor([4.25]), 1)
    assert (gradients.mean_loss(), gradients.tokens) == (8.0 / 3, 3)
    gradients.add_losses(torch.tensor([math.nan]), 1)
    assert gradients.poisoned
    assert math.isnan(gradients.mean_loss())
    assert math.isnan(Gradients().mean_loss())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_gradient_adds_up_in_any_order(ids: list[int], seed: int, random) -> None:
    dy = even(-2, 2, 3 * len(ids), seed).view(-1, 3)
    rows, total = embedding_gradient(torch.tensor(ids), dy)
    order = list(range(len(ids)))
    random.shuffle(order)
    again = embedding_gradient(torch.tensor(ids)[order], dy[order])
    assert torch.equal(rows, again[0])
    assert torch.equal(total, again[1])
    assert rows.tolist() == sorted(set(ids))
    dense = torch.zeros(7, 3, dtype=torch.float64).index_add_(0, torch.tensor(ids), dy.double())
    assert (total.double() * 2.0**-GRADIENT_BITS - dense[rows]).abs().max() <= len(ids) * 2.0**-41


def test_clamps_and_poison() -> None:
    dy = torch.tensor([[1e30, 1.0], [float("nan"), -float("inf")], [2.0, 3.0]])
    rows, total = embedding_gradient(torch.tensor([5, 2, 2]), dy)
    assert rows.tolist() == [2, 5]
    assert total.tolist() == [[POISON, -(2**53)], [2**53, 1 << 40]]
