"""From documents to batches: tokens, a held-out part, and who trains on what when.

Everything here is a pure function of the data, the tokenizer and four numbers (seed, round, shard, step): a batch can
be made again by an auditor on another machine, and no position need be stored when a worker dies.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from fallow.data.formats.plain import parts_of
from fallow.data.read import rows_of
from fallow.data.rows import Chat, Completion, Example
from fallow.errors import fail
from fallow.workloads.chat_template import TemplateError, render

Tokens = npt.NDArray[np.int64]
MAX_SEQUENCES = 1 << 22


@dataclass(frozen=True)
class Dataset:
    """Token sequences of one length: `train` and `holdout`, both (sequences, tokens) int64."""

    train: Tokens
    holdout: Tokens


@dataclass(frozen=True)
class BatchPosition:
    """Where in a training job a batch belongs. `global_step` counts a shard's inner steps from the job's start."""

    seed: int
    shard: int
    shards: int
    global_step: int


def load_dataset(path: Path, tokenizer: Any, sequence_tokens: int, holdout_sequences: int) -> Dataset:
    """Cut the data at `path` into sequences of `sequence_tokens`; what is left over at the end is dropped. The held-out
    ones are spread evenly over the data, and at most a fifth of it. Errors: UsageError E1702 for data that is no text
    or that the model's chat template refuses, E1703 when there are not two sequences of it."""
    pieces = [np.asarray(_encode(tokenizer, row), dtype=np.int64) for row in rows_of(path)]
    stream = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    count = min(stream.size // sequence_tokens, MAX_SEQUENCES)
    if count < 2:
        raise fail("E1703", f"The data holds {stream.size} tokens; training needs at least {2 * sequence_tokens}.")
    table = stream[: count * sequence_tokens].reshape(count, sequence_tokens)
    wanted = max(1, min(holdout_sequences, count // 5))
    places = np.arange(count, dtype=np.int64)
    held = (places + 1) * wanted // count > places * wanted // count
    return Dataset(table[~held], table[held])


def batch(dataset: Dataset, place: BatchPosition, sequences: int) -> Tokens:
    """The `sequences` that the worker of a shard trains on at one inner step, (sequences, tokens). A shard owns every
    `shards`-th sequence and goes through its own in a new order each time around."""
    count = len(dataset.train)
    own = np.arange(place.shard % count, count, place.shards, dtype=np.int64)
    first = place.global_step * sequences
    rows: list[int] = []
    for at in range(first, first + sequences):
        lap, position = divmod(at, len(own))
        rows.append(int(own[_order(place.seed, place.shard, place.shards, lap, len(own))[position]]))
    return dataset.train[np.asarray(rows, dtype=np.int64)]


@functools.lru_cache(maxsize=4)
def _order(seed: int, shard: int, shards: int, lap: int, count: int) -> npt.NDArray[np.int64]:
    """A permutation of `count`, by sorting keyed hash output: the same everywhere, unlike a library's generator."""
    key = blake3(f"fallow order 1|{seed}|{shard}|{shards}|{lap}".encode())
    draws = np.frombuffer(key.digest(length=8 * count), dtype="<u8")
    return cast(npt.NDArray[np.int64], np.argsort(draws, kind="stable"))


def _encode(tokenizer: Any, row: Example) -> list[int]:
    if isinstance(row, Chat):
        if not tokenizer.chat_template:
            raise fail("E1712", f"{row.place} is a chat, and this model has no chat template.")
        try:
            text = render(tokenizer, list(row.messages), answer_next=False)
        except TemplateError as error:
            raise fail("E1702", f"{row.place}: the model's chat template refuses the chat: {error}.") from error
        return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
    text = row.prompt + row.completion if isinstance(row, Completion) else row.text
    tokens = [t for part in parts_of(text) for t in tokenizer(part, add_special_tokens=False)["input_ids"]]
    ends = isinstance(row, Completion) or not row.continues
    return [*tokens, tokenizer.eos_token_id] if ends and isinstance(tokenizer.eos_token_id, int) else tokens
