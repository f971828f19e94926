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

from fallow.data.read import DataFacts, rows_of
from fallow.errors import fail
from fallow.workloads.packing import Packing, TokenRows, fitting_length, pack, table
from fallow.workloads.rendering import ASSISTANT, Heard, Renderer

MAX_SEQUENCES = 1 << 22
MAX_LENGTH = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """Rows of one length: those to train on, and those that are held out."""

    train: TokenRows
    holdout: TokenRows


@dataclass(frozen=True)
class BatchPosition:
    """Where in a training job a batch belongs. `global_step` counts a shard's inner steps from the job's start."""

    seed: int
    shard: int
    shards: int
    global_step: int


@dataclass(frozen=True)
class Rendering:
    """How rows of data become rows of `length` tokens. `loss`: see `rendering.Renderer`. `apart`: no two documents in
    one row, for models that would let them see each other."""

    length: int
    loss: str = ASSISTANT
    apart: bool = False


@dataclass(frozen=True)
class Prepared:
    """Data as a model will see it, and what was found on the way."""

    facts: DataFacts
    heard: Heard
    packed: Packing
    length: int
    tokens: int
    learned: int


def prepare(path: Path, tokenizer: Any, how: Rendering, lengths: tuple[int, int] = (2, MAX_LENGTH)) -> Prepared:
    """Read, render and pack the data at `path`: the one way, on the machine of whoever asks for the training and on
    those that do it. Where `how` names no length, one of `lengths` is chosen. Errors: UsageError E1702 for data that is
    none, or that the model's chat template refuses; E1703 when there are not two rows of it, or nothing in it is
    learned; E1711, E1712, E1708 and E2003 as `rows_of` and `Renderer.pieces`."""
    facts, renderer = DataFacts(), Renderer(tokenizer, how.loss)
    pieces = list(renderer.pieces(rows_of(path, facts)))
    length = how.length or fitting_length(pieces, *lengths)
    packed = pack(pieces, length, apart=how.apart)
    if len(packed.rows) < 2 <= sum(len(row) for row in packed.rows):
        packed = pack(pieces, length, apart=True)
    tokens = sum(len(piece.tokens) for piece in pieces)
    if not packed.rows and packed.unlearned:
        what = f"None of the {len(pieces)} rows of {path.name} has anything to learn: no assistant says anything there."
        raise fail("E1703", what, next_step="Add answers, or learn everything: --loss all")
    if len(packed.rows) < 2:
        what = f"The data holds {tokens} tokens; training on sequences of {length} needs at least {2 * length}."
        raise fail("E1703", what, next_step="Give more data, or a smaller --length.")
    learned = sum(int(piece.learned[1:].sum()) for row in packed.rows for piece in row)
    return Prepared(facts, renderer.heard, packed, length, tokens, learned)


def load_dataset(path: Path, tokenizer: Any, how: Rendering, holdout_sequences: int) -> Dataset:
    """The data at `path` as rows of tokens. The held-out ones are spread evenly over the data, and at most a fifth of
    it. Errors: as `prepare`."""
    rows = prepare(path, tokenizer, how).packed.rows[:MAX_SEQUENCES]
    count = len(rows)
    whole = table(rows, how.length, _pad(tokenizer))
    wanted = max(1, min(holdout_sequences, count // 5))
    places = np.arange(count, dtype=np.int64)
    held = (places + 1) * wanted // count > places * wanted // count
    return Dataset(whole[~held], whole[held])


def _pad(tokenizer: Any) -> int:
    """What fills rows up; which token it is makes no difference, since nobody sees it and nobody learns it."""
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((one for one in found if isinstance(one, int)), 0)


def batch(dataset: Dataset, place: BatchPosition, sequences: int) -> TokenRows:
    """The `sequences` that the worker of a shard trains on at one inner step. A shard owns every
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
