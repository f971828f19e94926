"""From a transformers model to an exact one: which models have Llama's form, and where their parameters go.

Nothing is copied: the exact model reads the parameters of the one it was made from, and training changes both. What
is read are plain attributes, so that neither transformers nor peft is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from fallow.errors import fail
from fallow.numerics.exact.attention import Heads
from fallow.numerics.exact.blocks import Attention, Block, Gated, Norm
from fallow.numerics.exact.linear import Affine, Detour, Weight
from fallow.numerics.exact.llama import ExactLlama
from fallow.numerics.exact.rotary import frequencies

FORMS = ("llama", "mistral", "qwen2")
"""`model_type` of the architectures that are Llama's, but for biases and windows."""


def exactify(network: Any, trainable: Mapping[str, Tensor] | None = None) -> ExactLlama:
    """The exact form of a transformers causal language model, with its LoRA layers (ours or peft's) in place.
    `trainable` names the parameters to take gradients of; None: those with `requires_grad`, by torch's names.
    Errors: E1709 naming the first thing that has no exact form."""
    config = _supported(network)
    named = dict(network.named_parameters()) if trainable is None else dict(trainable)
    if trainable is None:
        named = {name: p for name, p in named.items() if p.requires_grad}
    maker = _Maker({id(p): name for name, p in named.items()})
    body = _inner(network)
    heads = _heads(config)
    embedding = maker.weight(body.embed_tokens.weight)
    blocks = [maker.block(layer, _windowed(heads, config, at)) for at, layer in enumerate(body.layers)]
    norm, head = maker.norm(body.norm), maker.linear(_causal(network).lm_head)
    missing = sorted(set(named) - maker.used)
    if missing:
        raise fail("E1709", f"The parameter {missing[0]} has no place in an exact model.")
    rates = _frequencies(config, heads.size).to(embedding.parameter.device)
    return ExactLlama(embedding, blocks, norm, head, heads, rates, dict(sorted(named.items())))


class _Maker:
    """Makes exact parts of torch's; `names` are the trainable parameters' by identity, `used` those met so far."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._weights: dict[int, Weight] = {}
        self.used: set[str] = set()

    def block(self, layer: Any, heads: Heads) -> Block:
        a, m = layer.self_attn, layer.mlp
        query, key, value, output = (self.linear(part) for part in (a.q_proj, a.k_proj, a.v_proj, a.o_proj))
        gate, up, down = (self.linear(part) for part in (m.gate_proj, m.up_proj, m.down_proj))
        return Block(
            Attention(self.norm(layer.input_layernorm), query, key, value, output, heads),
            Gated(self.norm(layer.post_attention_layernorm), gate, up, down),
        )

    def norm(self, module: Any) -> Norm:
        return Norm(module.weight, float(module.variance_epsilon), self._name(module.weight))

    def weight(self, parameter: Tensor) -> Weight:
        if id(parameter) not in self._weights:
            self._weights[id(parameter)] = Weight(parameter, self._name(parameter))
        return self._weights[id(parameter)]

    def linear(self, module: Any) -> Affine:
        """A linear layer, or one with a LoRA around it: ours (`base`, `lora_A`, `lora_B`, `scale`) or peft's."""
        base = getattr(module, "base", None) or getattr(module, "base_layer", None)
        if base is None:
            if not isinstance(module, nn.Linear):
                raise fail("E1709", f"A layer of type {type(module).__name__} has no exact form.")
            bias = cast("Tensor | None", module.bias)
            return Affine(self.weight(module.weight), bias, None if bias is None else self._name(bias))
        plain = self.linear(base)
        down, up, scale = _detour(module)
        plain.detour = Detour(self.weight(down), self.weight(up), scale)
        return plain

    def _name(self, parameter: Tensor) -> str | None:
        name = self._names.get(id(parameter))
        if name is not None:
            self.used.add(name)
        return name


def _detour(module: Any) -> tuple[Tensor, Tensor, float]:
    if isinstance(module.lora_A, Tensor):
        return module.lora_A, module.lora_B, float(module.scale)
    active = list(module.active_adapters)
    if len(active) != 1 or module.merged or module.lora_A[active[0]].bias is not None:
        raise fail("E1709", "Exact models take one LoRA adapter, not merged and without biases.")
    name = active[0]
    if getattr(module.lora_dropout[name], "p", 0.0) or getattr(module, "use_dora", {}).get(name):
        raise fail("E1709", "Exact models take plain LoRA, without dropout and DoRA.")
    return module.lora_A[name].weight, module.lora_B[name].weight, float(module.scaling[name])


def _causal(network: Any) -> Any:
    """The model under peft's wrappers."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def _inner(network: Any) -> Any:
    return _causal(network).model


def _supported(network: Any) -> Any:
    config: Any = network.config
    form = getattr(config, "model_type", type(network).__name__)
    if form not in FORMS:
        raise fail("E1709", f"Models of type {form} have no exact form; {', '.join(FORMS)} have.")
    if config.hidden_act not in ("silu", "swish"):
        raise fail("E1709", f"The activation {config.hidden_act} has no exact form here.")
    if getattr(config, "attention_dropout", 0.0):
        raise fail("E1709", "Attention dropout has no exact form.")
    for name, parameter in network.named_parameters():
        if parameter.dtype.itemsize != 4 or not parameter.dtype.is_floating_point:
            raise fail("E1709", f"{name} is {parameter.dtype}; exact models are made of float32.")
    return config


def _heads(config: Any) -> Heads:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Heads(config.num_attention_heads, config.num_key_value_heads, size)


def _frequencies(config: Any, size: int) -> Tensor:
    try:
        return frequencies(size, float(config.rope_parameters["rope_theta"]), config.rope_parameters)
    except ValueError as error:
        raise fail("E1709", f"{error}.") from error


def _windowed(heads: Heads, config: Any, at: int) -> Heads:
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = kinds[at] == "sliding_attention" if kinds else config.model_type == "mistral"
    return Heads(heads.queries, heads.keys, heads.size, int(window)) if slides and window else heads
