"""Small transformers models with random weights, and the gradients that float64 autograd finds for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 96


def small_llama(seed: int = 1, **changes: Any) -> Any:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }
    return LlamaForCausalLM(LlamaConfig(**(settings | changes)))


def some_tokens(sequences: int, tokens: int, seed: int = 2) -> Tensor:
    return torch.randint(0, VOCABULARY, (sequences, tokens), generator=torch.Generator().manual_seed(seed))


def wide_gradients(network: Any, tokens: Tensor) -> tuple[float, dict[str, Tensor]]:
    """The mean loss and its gradients by float64 autograd, of parameters that want one."""
    wide = type(network)(network.config)
    wide.load_state_dict(network.state_dict())
    wide.double()
    logits = wide(input_ids=tokens).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in wide.named_parameters() if p.grad is not None}


def autograd_gradients(network: Any, trained: Mapping[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """The gradients of the mean loss by torch: in the network's own numbers, or those of an autocast around it."""
    logits = network(input_ids=tokens).logits[:, :-1]
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def distance(found: Tensor, true: Tensor) -> float:
    """Of two tensors, relative to the norm of the second."""
    return float((found.double() - true.double()).norm() / true.double().norm())
