"""The configuration and the tokenizer of a model folder that a stranger wrote. No library's constructor sees the
stranger's JSON: what is known to be needed is taken out of it, field by field, and everything else is left behind.

Defends against: fields that name files, classes, code, kernels or other models (a tokenizer's configuration that named
`../../keys/identity.key` had the keys read aloud), numbers that are none, and settings larger than any model has.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

from fallow.errors import fail
from fallow.workloads.model_files import json_object, not_a_model

MAX_NUMBER = 1 << 32
MAX_TEXT = 200
MAX_TEMPLATE_CHARS = 1 << 20
MAX_ITEMS = 20_000
MAX_NESTED = 3
_OLD_NAMES = ("rope_theta", "rope_scaling", "partial_rotary_factor")
_NOT_OURS = ("architectures", "dtype", "transformers_version", "id2label", "label2id", "problem_type")
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_config(folder: Path) -> Any:
    """The configuration of the causal language model in `folder`, of one of transformers' own classes. Errors:
    UsageError E1701 for a kind of model that transformers itself does not have, or a setting that is no setting."""
    table = json_object(folder / "config.json")
    kind = table.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise not_a_model(folder.name, f"models of type {str(kind)[:40]!r} are not known")
    if table.get("quantization_config") is not None:
        raise not_a_model(folder.name, "its weights are quantised")
    config_class: Any = CONFIG_MAPPING[kind]
    known = {field.name for field in dataclasses.fields(config_class)} | set(_OLD_NAMES)
    taken = {name: value for name, value in table.items() if name in known and name not in _NOT_OURS}
    for name, value in taken.items():
        if not _plain(value, MAX_NESTED):
            raise not_a_model(folder.name, f"its setting {name[:40]!r} is no setting of a model")
    return config_class(**taken)


def network_class(config: Any) -> Any:
    """The class of the network that a configuration of `read_config` describes."""
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def _plain(value: object, nested: int) -> bool:
    """Whether it is a number, a word or a switch, or a list or table of those."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= MAX_NUMBER
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if not isinstance(value, list | dict) or not nested or len(cast(list[Any], value)) > MAX_ITEMS:
        return False
    inner = cast(dict[str, Any], value).values() if isinstance(value, dict) else cast(list[Any], value)
    return all(_plain(one, nested - 1) for one in inner)


def end_tokens(folder: Path) -> set[int]:
    """The ids that `generation_config.json` says end an answer; none when there is no such file."""
    file = folder / "generation_config.json"
    value: Any = json_object(file).get("eos_token_id") if file.is_file() else None
    several = cast(list[Any], value) if isinstance(value, list) else [value]
    return {one for one in several if isinstance(one, int)}


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`: what `tokenizer.json` does, with the names of the special tokens and the chat template
    that stand beside it. Errors: UsageError E1701 when there is no such file, or it is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise fail(
            "E1701", f"The model in {folder.name} has no tokenizer.json.",
            cause="Older kinds of tokenizer files are read by code that a stranger's files must not reach.",
            next_step="Write one on your own machine: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )  # fmt: skip
    settings = folder / "tokenizer_config.json"
    table = json_object(settings) if settings.is_file() else {}
    tokens = {name: text for name in _TOKENS if (text := _token(table.get(name)))}
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file), **cast(dict[str, Any], tokens))
    tokenizer.chat_template = _template(folder, table)
    return tokenizer


def _token(value: object) -> str:
    """A special token's text, which stands alone or in a table of how it is matched."""
    text = cast(dict[str, Any], value).get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and len(text) <= MAX_TEXT else ""


def _template(folder: Path, table: dict[str, Any]) -> str | None:
    """The chat template, from its own file or the tokenizer's settings; of several the one called "default"."""
    file = folder / "chat_template.jinja"
    found: Any = table.get("chat_template")
    if file.is_file():
        if file.stat().st_size > MAX_TEMPLATE_CHARS:
            raise not_a_model(folder.name, "its chat template is too large")
        found = file.read_text("utf-8")
    if isinstance(found, list):
        rows = [cast(dict[str, Any], row) for row in cast(list[Any], found) if isinstance(row, dict)]
        found = next((row.get("template") for row in rows if row.get("name") == "default"), None)
    return found if isinstance(found, str) and 0 < len(found) <= MAX_TEMPLATE_CHARS else None
