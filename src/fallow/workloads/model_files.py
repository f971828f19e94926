"""What a model on disk is, found out without loading it and without torch: layout, size, and whether it is whole.

A model is a folder in Hugging Face's layout (`config.json`, `*.safetensors`, `tokenizer.json`) or a GGUF file (alone,
or as the only one in a folder). Pickled weights (`*.bin`, `*.pt`) are never looked at: unpickling runs code.

Defends against: headers made to exhaust memory, files cut off in the middle, shards that are named but not there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fallow.data.json_input import parse_json
from fallow.errors import FallowError, fail
from fallow.sdk.model_size import GGUF_MAGIC

MAX_HEADER_BYTES = 64 << 20
MAX_JSON_BYTES = 64 << 20
MAX_DIMENSIONS = 8
_WIDTH_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """`layout` is "hf" or "gguf"; `weights` are its weight files; `parameters` is 0 for GGUF, where only the size
    tells; `context_tokens` is 0 when the model does not say."""

    layout: str
    folder: Path
    weights: tuple[Path, ...]
    size_bytes: int
    parameters: int
    context_tokens: int
    architecture: str
    has_tokenizer: bool


def inspect_model(path: Path) -> ModelFacts:
    """Look at the model at `path` (a folder or a GGUF file). Reads headers only. Errors: UsageError E2003 when there is
    nothing, E1701 when it is no model or not whole."""
    if not path.exists():
        raise fail("E2003", f"There is no {path}.")
    gguf = find_gguf(path)
    if gguf is not None:
        return ModelFacts("gguf", gguf.parent, (gguf,), gguf.stat().st_size, 0, 0, "", has_tokenizer=True)
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise fail("E1701", f"{path.name} is not a model: it has no config.json and is no GGUF file.")
    config = json_object(folder / "config.json")
    weights = _weight_files(folder)
    parameters = sum(_count_parameters(file) for file in weights)
    context = config.get("max_position_embeddings")
    names = config.get("architectures")
    return ModelFacts(
        layout="hf",
        folder=folder,
        weights=weights,
        size_bytes=sum(file.stat().st_size for file in weights),
        parameters=parameters,
        context_tokens=context if isinstance(context, int) and context > 0 else 0,
        architecture=str(cast(list[Any], names)[0]) if isinstance(names, list) and names else "",
        has_tokenizer=(folder / "tokenizer.json").is_file(),
    )


def draft_of(folder: Path) -> Path:
    """Where a model is written before it is complete and gets its name."""
    return folder.with_name(folder.name + ".part")


def find_gguf(path: Path) -> Path | None:
    """The GGUF file at `path`: itself, or the only one in a folder that has no config.json. Errors: E1701 for
    several."""
    if path.is_file():
        with path.open("rb") as file:
            return path if file.read(4) == GGUF_MAGIC else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = [file for file in sorted(path.glob("*.gguf")) if find_gguf(file) is not None]
    if len(found) > 1:
        raise fail("E1701", f"{path.name} holds {len(found)} GGUF files.", next_step="Name one of the files.")
    return found[0] if found else None


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table = json_object(index).get("weight_map")
        if not isinstance(table, dict):
            raise fail("E1701", "The model's index of weight files cannot be read.")
        names = sorted({str(value) for value in cast(dict[str, Any], table).values()})
    else:
        names = ["model.safetensors"] if (folder / "model.safetensors").is_file() else []
    # Attack: an index that names files outside of the model's folder.
    files = tuple(folder / name for name in names if name == Path(name).name)
    missing = [file.name for file in files if not file.is_file()]
    if not files or missing or len(files) != len(names):
        what = f"lacks {missing[0]}" if missing else "has no weights in safetensors format"
        raise fail("E1701", f"The model in {folder.name} {what}.")
    return files


def _count_parameters(file: Path) -> int:
    """Count the numbers in a safetensors file, checking that it is as long as its header says."""
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - 8):
                raise ValueError("its header is cut off")
            header = cast(dict[str, Any], parse_json(stream.read(length)))
        header.pop("__metadata__", None)
        parameters, end = 0, 0
        for entry in header.values():
            shape, (start, stop) = entry["shape"], entry["data_offsets"]
            if not _sizes(shape, size_bytes) or not _sizes([start, stop], size_bytes):
                raise ValueError("a tensor's shape or place is none")
            count = math.prod(shape)
            if stop - start != count * _WIDTH_BYTES[entry["dtype"]]:
                raise ValueError("a tensor's size does not fit its shape")
            parameters, end = parameters + count, max(end, stop)
        if 8 + length + end != size_bytes:
            raise ValueError("it is cut off, or longer than it says")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_a_model(file.name, str(error)) from error
    return parameters


def _sizes(found: Any, most: int) -> bool:
    """Whether these are a few whole numbers, none of which is larger than a whole file. Attack: `Infinity`, and shapes
    whose product takes hours."""
    return (
        isinstance(found, list)
        and len(cast(list[Any], found)) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n <= most for n in cast(list[Any], found))
    )


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a model's `file`. Errors: E1701 when it is none, or too large."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise not_a_model(file.name, str(error)) from error
    if not isinstance(found, dict):
        raise not_a_model(file.name, "it holds no JSON object")
    return cast(dict[str, Any], found)


def not_a_model(name: str, why: str) -> FallowError:
    """E1701 for the file or folder `name`, in one line."""
    return fail("E1701", f"{name} is not a usable model: {' '.join(why.split())[:300]}.")
