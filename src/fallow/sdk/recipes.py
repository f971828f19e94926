"""How a model is trained when a program or a person does not say: one decision for the SDK and the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from fallow.kinds.train.trace import trace_bytes_for
from fallow.sdk.model_size import measure
from fallow.wire.local import ModelSize
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Recipe

Arithmetic = Literal["auto", "exact", "fp32"]
EXACT_FORMS = ("llama", "mistral", "qwen2")
"""`model_type` of the architectures that exact arithmetic knows (`numerics/exact/exactify.py`)."""
EXACT_BATCH = 341
"""The most sequences of a step, of `numerics.exact.format`."""


def settled(
    recipe: Recipe | None, model: str | os.PathLike[str], arithmetic: Arithmetic = "auto"
) -> tuple[Recipe, ModelSize]:
    """The recipe that a job is submitted with (LoRA with its defaults without one), and the model's size by it. "auto"
    is exact where the model has an exact form, so that any machine can check any other, and where the recipe asks for
    it in any case; "exact" and "fp32" are what they say. Of an exact recipe that does not say how much may be kept of a
    round, it is as much as the model needs to be checked by micro-batches (`kinds/train/trace.py`), so that no provider
    is asked for more room."""
    recipe = recipe or Recipe(method="lora")
    if arithmetic == "auto":
        arithmetic = "exact" if recipe.exact else arithmetic_for(model, recipe.batch_sequences)
    recipe = msgspec.structs.replace(recipe, arithmetic=arithmetic)
    size = measure(model, recipe)
    if recipe.exact and recipe.trace_bytes == DEFAULT_TRACE_BYTES and size.trained:
        recipe = msgspec.structs.replace(recipe, trace_bytes=trace_bytes_for(recipe, size.trained))
    return recipe, size


def arithmetic_for(model: str | os.PathLike[str], batch_sequences: int = 1) -> Literal["exact", "fp32"]:
    """How a model can be trained and asked: "exact" where its architecture has an exact form, so that any machine can
    check any other, and its steps are no larger than that allows; else "fp32"."""
    if batch_sequences > EXACT_BATCH:
        return "fp32"
    try:
        config = msgspec.json.decode((Path(model).expanduser() / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return "fp32"
    return "exact" if config.get("model_type") in EXACT_FORMS else "fp32"
