"""Packed rows in transformers' networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fallow.numerics.exact.sequences import Sequences
from fallow.workloads.boundaries import keeps_apart, losses_of

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None, "eos_token_id": 0,
}  # fmt: skip
HEEDING = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)),
    "a window": lambda: MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=3)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
}


def network(name: str) -> Any:
    torch.manual_seed(1)
    made = HEEDING[name]().eval()
    for parameter in made.parameters():  # as lively as a trained one, so that what is seen matters
        with torch.no_grad():
            parameter.mul_(3) if parameter.dim() > 1 else None
    return made


@pytest.mark.parametrize("name", HEEDING)
def test_documents_side_by_side_are_what_they_are_alone(name: str) -> None:
    made = network(name)
    tokens = torch.randint(64, (1, 12), generator=torch.Generator().manual_seed(2))
    first = torch.tensor([[0] * 5 + [5] * 7])
    learned = torch.ones(1, 12, dtype=torch.bool)
    learned[0, 5] = False
    batch = Sequences(tokens, learned, first)
    parts = [Sequences(tokens[:, :5]), Sequences(tokens[:, 5:])]
    assert keeps_apart(made)
    whole = losses_of(made, batch, "sum")
    alone = torch.stack([losses_of(made, part, "sum") for part in parts]).sum()
    assert torch.allclose(whole, alone, rtol=1e-5)
    together = torch.autograd.grad(whole, list(made.parameters()))
    apart = torch.autograd.grad(alone, list(made.parameters()))
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-9)


def test_a_network_that_knows_no_positions_is_found_out() -> None:
    torch.manual_seed(1)
    assert not keeps_apart(BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=4)))


def test_one_that_does_not_heed_them_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network("llama")
    heeding = made.forward

    def heedless(input_ids: Any = None, position_ids: Any = None, use_cache: bool = False) -> Any:
        return heeding(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(made, "forward", heedless)
    assert not keeps_apart(made)


def test_the_mean_is_over_what_is_learned() -> None:
    made, tokens = network("gpt2"), torch.arange(6)[None]
    learned = torch.tensor([[True, True, False, False, True, False]])
    batch = Sequences(tokens, learned)
    with torch.no_grad():
        total, mean = float(losses_of(made, batch, "sum")), float(losses_of(made, batch, "mean"))
    assert total == pytest.approx(2 * mean, rel=1e-6)
