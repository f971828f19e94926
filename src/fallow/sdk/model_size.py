"""How large a model is, from the headers of its files alone: what a job says of it so that machines which cannot hold
it are not asked (`kinds/train/sizes.py`). Needs no tensor libraries, and less than a second.

Figures that cannot be found stay 0, and the job asks for what its kind usually needs. The files are the owner's own;
all the same nothing that they say is believed beyond the bounds here.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from fallow.wire.local import ModelSize
from fallow.wire.tasks import Recipe

MAX_HEADER_BYTES = 64 << 20
MAX_GGUF_KEYS = 4_096
MAX_FIGURE = 1 << 48
GGUF_MAGIC = b"GGUF"
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def measure(model: str | os.PathLike[str], recipe: Recipe | None = None) -> ModelSize:
    """The size of a model folder in Hugging Face's layout or of a GGUF file (alone, or in a folder without
    config.json), and of what `recipe` would train of it. Raises nothing: whoever loads the model says what is wrong
    with it."""
    path = Path(model).expanduser()
    try:
        files = sorted(path.glob("*.gguf")) if path.is_dir() and not (path / "config.json").exists() else [path]
        if files and files[0].is_file() and _magic(files[0]) == GGUF_MAGIC:
            return _gguf(files[0])
        return _folder(path if path.is_dir() else path.parent, recipe)
    except (OSError, ValueError, TypeError, KeyError, struct.error, msgspec.DecodeError, RecursionError):
        return ModelSize()


def _magic(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(len(GGUF_MAGIC))


# Hugging Face ---------------------------------------------------------------------------------------------------------


def _folder(folder: Path, recipe: Recipe | None) -> ModelSize:
    config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
    weights = sorted(folder.glob("*.safetensors"))
    shapes = {name: shape for file in weights for name, shape in _shapes(file).items()}
    heads = _figure(config, "num_attention_heads")
    width = _figure(config, "hidden_size")
    head_width = _figure(config, "head_dim") or (width // heads if heads else 0)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return ModelSize(
        stored_bytes=sum(file.stat().st_size for file in weights),
        parameters=min(parameters, MAX_FIGURE),
        trained=min(trained(shapes, recipe), MAX_FIGURE) if recipe is not None else 0,
        layers=_figure(config, "num_hidden_layers"),
        width=width,
        inner=_figure(config, "intermediate_size"),
        vocabulary=_figure(config, "vocab_size"),
        kv_width=(_figure(config, "num_key_value_heads") or heads) * head_width,
        heads=heads,
    )


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError("a header without end")
        header = msgspec.json.decode(stream.read(length), type=dict[str, dict[str, Any]])
    return {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def trained(shapes: dict[str, tuple[int, ...]], recipe: Recipe) -> int:
    """How many numbers the recipe trains."""
    if recipe.method != "lora":
        return sum(math.prod(shape) for shape in shapes.values())
    ends = tuple(f"{target}.weight" for target in recipe.lora_targets)
    return sum(
        recipe.lora_rank * sum(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(ends) and name.split(".")[-2] in recipe.lora_targets
    )


def _figure(table: dict[str, Any], name: str) -> int:
    """A whole number, 0 where there is none; multi-modal models keep their text part's in a table of its own."""
    value = table.get(name)
    inner = table.get("text_config")
    if value is None and isinstance(inner, dict):
        value = cast("dict[str, Any]", inner).get(name)
    return value if isinstance(value, int) and 0 < value <= MAX_FIGURE else 0


# GGUF -----------------------------------------------------------------------------------------------------------------


def _gguf(file: Path) -> ModelSize:
    """The header's table of keys; the tensors stay unread. `parameters` is 0: the file is mapped as it is."""
    with file.open("rb") as stream:
        found = dict(_keys(stream))
    kind = found.get("general.architecture", "")
    heads, width = _figure(found, f"{kind}.attention.head_count"), _figure(found, f"{kind}.embedding_length")
    head_width = _figure(found, f"{kind}.attention.key_length") or (width // heads if heads else 0)
    return ModelSize(
        stored_bytes=file.stat().st_size,
        layers=_figure(found, f"{kind}.block_count"),
        width=width,
        inner=_figure(found, f"{kind}.feed_forward_length"),
        vocabulary=_figure(found, f"{kind}.vocab_size") or _figure(found, "tokenizer.ggml.tokens"),
        kv_width=(_figure(found, f"{kind}.attention.head_count_kv") or heads) * head_width,
        heads=heads,
    )


def _keys(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Every key with its value; of an array only its length."""
    _, version, _, count = struct.unpack("<4sIQQ", stream.read(24))
    if version < 2 or count > MAX_GGUF_KEYS:
        raise ValueError("not a GGUF header that is known")
    for _ in range(count):
        key = _text(stream)
        yield key, _value(stream, int.from_bytes(stream.read(4), "little"))


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(stream)
    if kind != _ARRAY:
        return _number(stream, _FIXED[kind])
    inner, length = struct.unpack("<IQ", stream.read(12))
    if inner == _STRING:
        for _ in range(min(length, MAX_HEADER_BYTES)):
            _text(stream)
    else:
        stream.seek(struct.calcsize(_FIXED[inner]) * length, os.SEEK_CUR)
    return int(length)


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))[0]


def _text(stream: BinaryIO) -> str:
    length = _number(stream, "Q")
    if length > MAX_HEADER_BYTES:
        raise ValueError("a text without end")
    read = stream.read(length)
    if len(read) != length:
        raise ValueError("cut off")
    return read.decode("utf-8", "replace")
