"""How a model is trained when a program or a person does not say: one decision for the SDK and the command line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Recipe
from fallow.wire.traces import trace_bytes_for

Arithmetic = Literal["auto", "exact", "fp32"]
EXACT_FORMS = ("llama", "mistral", "qwen2")
"""`model_type` of the architectures that exact arithmetic knows (`numerics/exact/exactify.py`)."""
MAX_HEADER_BYTES = 64 << 20


def settled(recipe: Recipe | None, model: str | os.PathLike[str], arithmetic: Arithmetic = "auto") -> Recipe:
    """The recipe that a job is submitted with (LoRA with its defaults without one). "auto" is exact where the model has
    an exact form, so that any machine can check any other, and where the recipe asks for it in any case; "exact" and
    "fp32" are what they say. Of an exact recipe that does not say how much may be kept of a round, it is as much as the
    model needs to be checked by micro-batches (`wire/traces.py`), so that no provider is asked for more room."""
    recipe = recipe or Recipe(method="lora")
    if arithmetic == "auto":
        arithmetic = "exact" if recipe.exact or arithmetic_for(model) == "exact" else "fp32"
    recipe = msgspec.structs.replace(recipe, arithmetic=arithmetic)
    parameters = trained_parameters(model, recipe) if recipe.exact else 0
    if recipe.trace_bytes != DEFAULT_TRACE_BYTES or not parameters:
        return recipe
    return msgspec.structs.replace(recipe, trace_bytes=trace_bytes_for(recipe, parameters))


def arithmetic_for(model: str | os.PathLike[str]) -> Literal["exact", "fp32"]:
    """How a model can be trained: "exact" where its architecture has an exact form, else "fp32"."""
    try:
        config = msgspec.json.decode((Path(model).expanduser() / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return "fp32"
    return "exact" if config.get("model_type") in EXACT_FORMS else "fp32"


def trained_parameters(model: str | os.PathLike[str], recipe: Recipe) -> int:
    """How many parameters of a model folder the recipe trains, by the headers of its safetensors files; 0 where they
    do not tell. A matrix that the files hold twice is counted twice."""
    shapes = dict(_shapes(Path(model).expanduser()))
    if recipe.method == "full":
        return sum(map(math.prod, shapes.values()))
    ends = {f"{target}.weight" for target in recipe.lora_targets}
    chosen = [shape for name, shape in shapes.items() if ".".join(name.split(".")[-2:]) in ends and len(shape) == 2]
    return sum(recipe.lora_rank * sum(shape) for shape in chosen)


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if length <= MAX_HEADER_BYTES else None
        except (OSError, ValueError, RecursionError):
            continue
        for name, tensor in cast(dict[str, Any], header).items() if isinstance(header, dict) else ():
            if (shape := _shape(tensor)) is not None and name != "__metadata__":
                yield name, shape


def _shape(tensor: object) -> tuple[int, ...] | None:
    found: object = cast(dict[str, object], tensor).get("shape") if isinstance(tensor, dict) else None
    if not isinstance(found, list):
        return None
    sizes = [size for size in cast(list[object], found) if isinstance(size, int) and size >= 0]
    return tuple(sizes) if len(sizes) == len(cast(list[object], found)) else None
