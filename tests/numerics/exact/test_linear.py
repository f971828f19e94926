from __future__ import annotations

import torch
from tests.numerics.exact.small_llama import distance

from fallow.numerics.exact.format import quantise
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.linear import Affine, Detour, Weight


def test_bias_and_detour_are_added_and_learn() -> None:
    torch.manual_seed(0)
    w, b, down, up = torch.randn(6, 10), torch.randn(6), torch.randn(2, 10), torch.randn(6, 2)
    x, dy = torch.randn(2, 5, 10), torch.randn(2, 5, 6)
    layer = Affine(Weight(w, "w"), b, "b", Detour(Weight(down, "down"), Weight(up, "up"), 0.5))
    gradients, grid = Gradients(tokens=1), quantise(x)
    y, middle = layer.forward(grid)
    dx = layer.backward(dy, grid, middle, gradients)

    wide = [t.double().requires_grad_() for t in (x, w, b, down, up)]
    true = wide[0] @ wide[1].T + wide[2] + (wide[0] @ wide[3].T) @ wide[4].T * 0.5
    true.backward(dy.double())
    assert distance(y, true.detach()) < 3e-4
    found = gradients.means()
    for one, reference in zip((dx, found["w"], found["b"], found["down"], found["up"]), wide, strict=True):
        assert reference.grad is not None
        assert distance(one, reference.grad) < 4e-4


def test_many_small_entries_beside_a_large_one_survive_the_fold() -> None:
    """A gradient of logits: a large entry at the target and thousands of 2^-12, at the edge of what one grid keeps
    beside it, while the steps of the matrix's rows differ."""
    torch.manual_seed(0)
    tokens, words, width = 6, 4096, 8
    w = (torch.randn(words, width) + 1.0) * 2.0 ** -(torch.arange(words) % 4)[:, None]
    dy = torch.full((1, tokens, words), 2.0**-12) * (0.5 + torch.rand(1, tokens, words))
    dy[0, torch.arange(tokens), 4 * torch.arange(tokens)] -= 1.0
    x = torch.randn(1, tokens, width) * 2.0 ** torch.arange(tokens)[:, None]
    weight, grid = Weight(w, "w"), quantise(x)
    values = weight.packed.grid.values().double()
    true, true_w = dy.double() @ values, dy[0].double().T @ grid.values()[0].double()

    gradients = Gradients(tokens=1)
    assert distance(Affine(weight).backward(dy, grid, None, gradients, twice=True), true) < 1e-6
    assert distance(gradients.means()["w"], true_w) < 1e-6
    once = Affine(Weight(w)).backward(dy, grid, None, Gradients())
    before = quantise(dy).values()
    split = sum(Weight(w).back(part) for part in (before, dy - before))
    assert isinstance(split, torch.Tensor)
    assert min(distance(once, true), distance(split, true)) > 0.01


def test_frozen_parts_learn_nothing() -> None:
    layer, gradients = Affine(Weight(torch.ones(3, 4))), Gradients()
    grid = quantise(torch.ones(1, 2, 4))
    assert layer.backward(torch.ones(1, 2, 3), grid, None, gradients).shape == (1, 2, 4)
    assert gradients.totals == {}


def test_a_weight_is_quantised_once_until_it_is_written_to() -> None:
    weight = Weight(torch.ones(3, 4))
    packed, grid, values = weight.packed, weight.packed.grid, weight.packed.grid.values()
    assert weight.packed.grid is grid
    weight.parameter.mul_(2)
    assert weight.packed is packed  # the same memory, for both ways
    assert packed.grid is not grid
    assert torch.equal(packed.grid.values(), values * 2)
    with torch.inference_mode():
        frozen = Weight(torch.ones(2, 2))
        assert frozen.packed is frozen.packed
