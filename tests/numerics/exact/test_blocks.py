from __future__ import annotations

import torch
from tests.numerics.exact.small_llama import distance, small_llama

from fallow.numerics.exact import attention
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.rotary import tables


def test_a_block_is_transformers_layer_forward_and_back() -> None:
    network = small_llama()
    model, layer = exactify(network), network.model.layers[0].double()
    x, dy = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    places = torch.arange(9)
    wide = x.double().requires_grad_()
    turns = network.model.rotary_emb(wide, places[None])
    mask = torch.full((9, 9), float("-inf"), dtype=torch.float64).triu(1)[None, None]
    layer(wide, attention_mask=mask, position_embeddings=turns).backward(dy.double())

    block = exactify(small_llama()).blocks[0]
    angles, span = tables(places, model.frequencies), attention.span(model.heads, 9, 0, x.device)
    middle, attention_tape = block.attention.forward(x, angles, span)
    _, gated_tape = block.gated.forward(middle)
    dx = block.attention.backward(
        block.gated.backward(dy, gated_tape, Gradients()), angles, attention_tape, Gradients()
    )
    assert dx is not None
    assert wide.grad is not None
    assert distance(dx, wide.grad) < 1e-3
    assert len(block.linears()) == 7
