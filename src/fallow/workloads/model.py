"""Models in memory: loading a Hugging Face folder in fp32 for reproducible work, and converting GGUF to one.

Loading never runs code of the model's author: no remote code, no pickles, nothing but known settings (`hf_folder.py`),
and chat templates run in transformers' sandbox.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.utils import disable_progress_bars
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM as _AutoModelForCausalLM
from transformers import AutoTokenizer as _AutoTokenizer
from transformers.utils import logging as transformers_logging

from fallow.errors import FallowError, fail
from fallow.workloads.hf_folder import end_tokens, network_class, read_config, read_tokenizer
from fallow.workloads.model_files import ModelFacts, draft_of, inspect_model, json_object, not_a_model

AutoModelForCausalLM: Any = _AutoModelForCausalLM
AutoTokenizer: Any = _AutoTokenizer
ReportProgress = Callable[[int, int, str], None]
"""Hears how far something is: done, total, what."""
TELLINGS = 10
_COSTLY = ("GGUFReader", "get_tensor_name_map")


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in fp32 on the CPU, in eval mode, without gradients, and its tokenizer. `ends` are the
    token ids that end an answer."""

    network: Any
    tokenizer: Any
    facts: ModelFacts
    context_tokens: int
    ends: frozenset[int]


def be_reproducible(threads: int) -> None:
    """Make this process's tensor work repeat bit for bit on like machines: a fixed number of threads (sums are split by
    thread), deterministic kernels, no randomness but our own."""
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(0)


def load_model(path: Path) -> LoadedModel:
    """Load a Hugging Face folder. Errors: UsageError E1701 when it is no model, is cut off, lacks weights of its own
    architecture or its tokenizer."""
    facts = inspect_model(path)
    if facts.layout != "hf":
        raise fail("E1701", f"{path.name} is a GGUF file, which must be converted before training.")
    be_quiet()
    try:
        tokenizer, config = read_tokenizer(facts.folder), read_config(facts.folder)
        # Without a folder's name, transformers opens no file: no adapter's settings either, which name another model.
        network, report = network_class(config).from_pretrained(
            None, config=config, state_dict=_weights(facts), dtype=torch.float32, attn_implementation="sdpa",
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # the libraries raise anything for a folder that somebody tampered with
        raise _blame(path, error) from error
    # transformers fills in what is missing with random numbers and a warning, which nobody could reproduce.
    missing = sorted(set(cast(dict[str, Any], report).get("missing_keys", ())))
    if missing:
        raise not_a_model(path.name, f"weights are missing, {missing[0]} first")
    network.eval()
    network.requires_grad_(False)
    limit = int(getattr(network.config, "max_position_embeddings", 0) or 0)
    return LoadedModel(network, tokenizer, facts, limit or 2048, _end_tokens(network, tokenizer, facts.folder))


def _weights(facts: ModelFacts) -> dict[str, torch.Tensor]:
    """All tensors of a folder, mapped rather than read."""
    found: dict[str, torch.Tensor] = {}
    for file in facts.weights:
        for name, tensor in load_file(file).items():
            if name in found:
                raise not_a_model(facts.folder.name, f"two files hold {name[:80]!r}")
            found[name] = tensor
    return found


def _blame(path: Path, error: Exception) -> Exception:
    """The error to raise: E1701 where the model is at fault, the error itself where the machine is (memory, disk)."""
    machine = isinstance(error, MemoryError | FallowError) or (isinstance(error, OSError) and error.errno is not None)
    return error if machine else not_a_model(path.name, str(error))


def _end_tokens(network: Any, tokenizer: Any, folder: Path) -> frozenset[int]:
    found = end_tokens(folder)
    for source in (network.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        several = cast(list[Any], value) if isinstance(value, list) else [value]
        found.update(one for one in several if isinstance(one, int))
    return frozenset(found)


def convert_gguf(path: Path, folder: Path, tell: ReportProgress = lambda _done, _total, _note: None) -> ModelFacts:
    """Write the model of the GGUF file `path` as a Hugging Face folder (fp16 weights, tokenizer, chat template). Takes
    about 20 s for 135M parameters and gives the same bytes every time. `folder` appears only when it is complete.
    `tell` hears how many of the tensors are read, and what is done now, some ten times. Errors: UsageError E1701 when
    it is no GGUF file or of an architecture that transformers cannot read."""
    facts = inspect_model(path)
    if facts.layout != "gguf":
        raise fail("E1701", f"{path.name} is no GGUF file.")
    source = facts.weights[0]
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    be_quiet()
    try:
        _remember_gguf()
        tell(0, 0, "reading the header and the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        _count_tensors(source, tell)
        network = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
        )
        # The numbers are plain now, but transformers still calls the model quantised and would not save it.
        network.hf_quantizer, network.is_quantized = None, False
        if hasattr(network.config, "quantization_config"):
            del network.config.quantization_config
        tell(0, 0, "writing the folder")
        network.to(torch.float16).save_pretrained(draft)
        tokenizer.save_pretrained(draft)
    except Exception as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _blame(path, error) from error
    finally:
        _forget_gguf()
    draft.rename(folder)
    return inspect_model(folder)


def _remember_gguf() -> None:
    """Keep what transformers would work out again and again: it parses the whole file three times, and makes the table
    of tensor names anew for every module. Halves the time."""
    gguf: Any = importlib.import_module("gguf")
    for name in _COSTLY:
        plain = getattr(gguf, name)
        if not hasattr(plain, "cache_clear"):
            setattr(gguf, name, functools.lru_cache(maxsize=1)(plain))


def _count_tensors(source: Path, tell: ReportProgress) -> None:
    """Have each tensor counted that transformers reads; until `_forget_gguf`."""
    gguf: Any = importlib.import_module("gguf")
    with source.open("rb") as file:
        total = max(1, int.from_bytes(file.read(16)[8:], "little"))
    plain, counts = gguf.dequantize, itertools.count(1)

    def counted(data: Any, kind: Any) -> Any:
        found, done = plain(data, kind), next(counts)
        if done * TELLINGS // total != (done - 1) * TELLINGS // total:
            tell(done, total, "reading tensors")
        return found

    counted.plain = plain  # pyright: ignore[reportFunctionMemberAccess]
    gguf.dequantize = counted


def _forget_gguf() -> None:
    gguf: Any = importlib.import_module("gguf")
    gguf.dequantize = getattr(gguf.dequantize, "plain", gguf.dequantize)
    for name in _COSTLY:
        getattr(getattr(gguf, name), "cache_clear", lambda: None)()


def base_name(facts: ModelFacts, content: bytes) -> str:
    """What an adapter calls the model that it was made for: the name in config.json, else the hash of its content.
    Never a path, which would differ between machines."""
    config = json_object(facts.folder / "config.json")
    for key in ("_name_or_path", "_model_name_or_path"):
        name = config.get(key)
        if isinstance(name, str) and name and not name.startswith(("/", ".", "~")):
            return name[:200]
    return f"fallow/{content.hex()}"


def be_quiet() -> None:
    """Keep the libraries from talking on stderr: what they have to say comes back as our errors."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers|torch|gguf")
