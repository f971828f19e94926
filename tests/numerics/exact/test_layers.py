from __future__ import annotations

import torch
from tests.numerics.exact.small_llama import distance
from torch import Tensor, nn

from fallow.numerics.exact.attention import Heads
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.layers import (
    Embedding,
    Linear,
    RMSNorm,
    attend,
    collecting,
    cross_entropy,
    name_parameters,
    swiglu,
)

HEADS = Heads(4, 2, 8)


class Model(nn.Module):
    """One block, of exact parts, and the same of torch's in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Embedding(30, 32)
        self.norm = RMSNorm(32)
        self.q, self.k, self.v = Linear(32, 32), Linear(32, 16, bias=False), Linear(32, 16)
        self.gate, self.up, self.out = Linear(32, 40), Linear(32, 40), Linear(40, 30)
        name_parameters(self)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.rows(ids)
        h = self.norm(x)
        q, k, v = (m(h).unflatten(-1, (-1, 8)) for m in (self.q, self.k, self.v))
        x = x + attend(HEADS, q, k, v)
        return self.out(swiglu(self.gate(x), self.up(x)))

    def wide(self, ids: Tensor) -> Tensor:
        p = {name: value.detach().double().requires_grad_() for name, value in self.named_parameters()}
        self.reference = p

        def linear(name: str, x: Tensor) -> Tensor:
            return nn.functional.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

        x = p["rows.weight"][ids]
        h = nn.functional.rms_norm(x, (32,), p["norm.weight"], 1e-5)
        q, k, v = (linear(n, h).unflatten(-1, (-1, 8)).transpose(1, 2) for n in "qkv")
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + mixed.transpose(1, 2).flatten(-2)
        return linear("out", nn.functional.silu(linear("gate", x)) * linear("up", x))


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 30, (4, 12), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def test_modules_learn_as_in_float64() -> None:
    torch.manual_seed(0)
    model, (ids, targets) = Model(), batch()
    cross_entropy(model(ids), targets).sum().backward()
    nn.functional.cross_entropy(model.wide(ids).flatten(0, 1), targets.flatten(), reduction="sum").backward()
    for name, parameter in model.named_parameters():
        true = model.reference[name].grad
        assert parameter.grad is not None
        assert true is not None
        assert distance(parameter.grad, true) < 3e-3, name


def test_collected_gradients_are_the_same_however_a_batch_is_cut() -> None:
    torch.manual_seed(0)
    model, (ids, targets) = Model(), batch()
    totals: list[dict[str, Tensor]] = []
    for parts in ([[0, 1, 2, 3]], [[3], [0, 2], [1]]):
        gradients = Gradients()
        with collecting(gradients):
            for part in parts:
                cross_entropy(model(ids[part]), targets[part]).sum().backward()
        assert all(p.grad is None for p in model.parameters())
        totals.append(gradients.totals)
    assert totals[0].keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(totals[0][name], totals[1][name]) for name in totals[0])


def test_frozen_parameters_get_nothing_and_pass_gradients_on() -> None:
    model, (ids, targets) = Model(), batch()
    model.requires_grad_(requires_grad=False)
    model.rows.weight.requires_grad_()
    cross_entropy(model(ids), targets).sum().backward()
    assert model.rows.weight.grad is not None
    assert model.out.weight.grad is model.norm.weight.grad is None
