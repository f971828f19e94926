"""LoRA without a framework: put low-rank matrices beside a model's linear layers, train only those, and write or read
them in PEFT's format.

The start is a pure function of the layer's name and shape (A uniform from a hash, B zero), so that every worker starts
from the same bits without being sent them.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, section 4.1; the scale alpha / rank and the bound
1/sqrt(inputs) of A's start are PEFT's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fallow.errors import fail
from fallow.numerics import layout
from fallow.numerics.compress import Floats
from fallow.workloads.model_files import not_a_model

MAX_RANK = 1024
ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MAX_ADAPTER_BYTES = 8 << 30
_PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained detour: y = W x + (alpha / rank) B A x."""

    def __init__(self, base: nn.Linear, name: str, rank: int, alpha: int) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        start = _uniform(f"{name}.lora_A", rank * base.in_features, 1.0 / math.sqrt(base.in_features))
        self.lora_A = nn.Parameter(torch.from_numpy(start.reshape(rank, base.in_features)))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        # inputs: (batch, tokens, in), fp32
        detour = functional.linear(functional.linear(inputs, self.lora_A), self.lora_B)
        return cast(Tensor, self.base(inputs)) + detour * self.scale


def _uniform(name: str, count: int, bound: float) -> Floats:
    draws = np.frombuffer(blake3(f"fallow lora 1|{name}".encode()).digest(length=4 * count), dtype="<u4")
    return ((draws.astype(np.float64) / 2.0**31 - 1.0) * bound).astype(np.float32)


def inject(network: nn.Module, targets: tuple[str, ...], rank: int, alpha: int) -> dict[str, nn.Parameter]:
    """Replace each linear layer whose dotted name ends in one of `targets` by a LoraLinear, in place. Returns the
    trainable parameters by PEFT's names (without its prefix). Errors: E1707 when the rank is out of bounds or nothing
    matches."""
    if not 1 <= rank <= MAX_RANK:
        raise fail("E1707", f"A LoRA rank of {rank} is not between 1 and {MAX_RANK}.")
    chosen = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in targets
    ]
    if not chosen:
        raise fail("E1707", f"The model has no linear layer called {' or '.join(targets)}.")
    found: dict[str, nn.Parameter] = {}
    for name, module in chosen:
        parent, _, leaf = name.rpartition(".")
        layer = LoraLinear(module, name, rank, alpha)
        setattr(network.get_submodule(parent), leaf, layer)
        found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = layer.lora_A, layer.lora_B
    return found


def write_adapter(folder: Path, theta: dict[str, Floats], base_model: str, settings: dict[str, Any]) -> None:
    """Write an adapter as `peft.PeftModel.from_pretrained` reads it. `settings` holds `rank`, `alpha` and `targets`.
    Equal input gives equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_PREFIX + name: value for name, value in theta.items()}
    plan = layout.layout({name: ("F32", value.shape) for name, value in tensors.items()}, "adapter 1")
    layout.write(folder / ADAPTER_FILE, plan, cast(dict[str, layout.Array], tensors))
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings["alpha"],
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": settings["rank"],
        "target_modules": sorted(settings["targets"]),
        "task_type": "CAUSAL_LM",
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_adapter(
    network: nn.Module, folder: Path, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
) -> None:
    """Add a LoRA adapter in PEFT's format to the weights of `network`, in place (fp32); `multiply` gives the product of
    B and A. Errors: E1701 when it cannot be read, is of a kind that we do not know, or does not fit the model."""
    try:
        sizes_bytes = [(folder / name).stat().st_size for name in (ADAPTER_FILE, CONFIG_FILE)]
        if sizes_bytes[0] > MAX_ADAPTER_BYTES or sizes_bytes[1] > 1 << 20:
            raise ValueError("it is too large")
        config = cast(dict[str, Any], json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        tensors = load_file(folder / ADAPTER_FILE)
        plain = config["peft_type"] == "LORA" and not config.get("use_dora") and config.get("bias", "none") == "none"
        if not plain or config.get("rank_pattern") or config.get("alpha_pattern") or config.get("fan_in_fan_out"):
            raise ValueError("it is no plain LoRA")
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        _merge(network, tensors, scale, multiply)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, SafetensorError) as error:
        raise not_a_model(folder.name, f"the adapter does not fit: {error}") from error


def _merge(
    network: nn.Module, tensors: dict[str, Tensor], scale: float, multiply: Callable[[Tensor, Tensor], Tensor]
) -> None:
    starts = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    if not starts or len(tensors) != 2 * len(starts):
        raise ValueError("it holds other tensors than pairs of A and B")
    for start in sorted(starts):
        down, up = tensors[f"{start}.lora_A.weight"].float(), tensors[f"{start}.lora_B.weight"].float()
        weight = cast(Tensor, network.get_submodule(start.removeprefix(_PREFIX)).weight)
        fits = down.ndim == up.ndim == 2 and up.shape[1] == down.shape[0]
        if not fits or (up.shape[0], down.shape[1]) != weight.shape:
            raise ValueError(f"{start} has another shape")
        with torch.no_grad():
            weight += multiply(up, down) * scale
