from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from tests.numerics.exact.small_llama import VOCABULARY, distance, small_llama, some_tokens, wide_gradients
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fallow.errors import FallowError
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.training import gradients_of
from fallow.workloads import lora

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}


def test_parameters_are_shared_not_copied() -> None:
    network = small_llama()
    model = exactify(network)
    assert {id(p) for p in model.trainable.values()} == {id(p) for p in network.parameters()}
    assert model.head.weight is model.embedding


@pytest.mark.parametrize(
    "targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")]
)
def test_lora_of_ours_learns_as_in_float64(targets: tuple[str, ...]) -> None:
    network, tokens = small_llama(), some_tokens(2, 15)
    trainable = lora.inject(network, targets, 4, 8)
    network.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(4)
    for parameter in trainable.values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        parameter.requires_grad_()
    found = gradients_of(exactify(network, trainable), tokens).means()
    network.double()
    logits = network(input_ids=tokens).logits[:, :-1]
    torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)).backward()
    assert found.keys() == trainable.keys()
    for name, parameter in trainable.items():
        assert parameter.grad is not None
        assert distance(found[name], parameter.grad) < 0.006, name


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_models_have_an_exact_form_too() -> None:
    network, tokens = small_llama(), some_tokens(2, 9)
    ours = small_llama()
    trainable = lora.inject(ours, ("q_proj", "v_proj"), 4, 8)
    wrapped = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                short = name.removeprefix("base_model.model.").replace(".default", "")
                trainable[short].fill_(0.01 * (len(name) % 5 + 1))
                parameter.copy_(trainable[short])
    model = exactify(wrapped)
    assert len(model.trainable) == 8
    assert torch.equal(model.losses(tokens), exactify(ours, trainable).losses(tokens))


@pytest.mark.parametrize(
    ("make", "config"),
    [(Qwen2ForCausalLM, Qwen2Config(**SIZES)), (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=7))],
)
def test_models_of_the_same_form_are_taken(make: Any, config: Any) -> None:
    torch.manual_seed(3)
    network, tokens = make(config), some_tokens(2, 16)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    loss, true = wide_gradients(network, tokens)
    gradients = gradients_of(exactify(network), tokens)
    assert gradients.mean_loss() == pytest.approx(loss, abs=1e-3)
    for name, gradient in gradients.means().items():
        assert distance(gradient, true[name]) < 0.006 or true[name].norm() < 1e-6, name


def test_llama_3_positions_are_taken_and_others_refused() -> None:
    rope: dict[str, Any] = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    network, tokens = small_llama(rope_parameters=rope), some_tokens(1, 50)
    loss, _ = wide_gradients(network, tokens)
    assert float(exactify(network).losses(tokens).mean()) == pytest.approx(loss, abs=2e-3)
    yarn: dict[str, Any] = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
    with pytest.raises(FallowError, match="yarn"):
        exactify(small_llama(rope_parameters=yarn))


def test_what_has_no_exact_form_is_refused_by_name() -> None:
    with pytest.raises(FallowError, match="gemma2") as caught:
        exactify(Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8)))
    assert caught.value.code == "E1709"
    with pytest.raises(FallowError, match="gelu"):
        exactify(small_llama(hidden_act="gelu"))
    with pytest.raises(FallowError, match="float64"):
        exactify(small_llama().double())
    with pytest.raises(FallowError, match="stray"):
        exactify(small_llama(), {"stray": torch.zeros(1)})
    assert LlamaConfig().model_type == "llama"
