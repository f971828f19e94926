from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.workloads.tiny import TEXT, make_model
from transformers import AutoTokenizer

from fallow.data.formats import plain
from fallow.errors import FallowError
from fallow.workloads.data import BatchPosition, Dataset, Rendering, batch, load_dataset
from fallow.workloads.packing import TokenRows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("tokens") / "model"))


def write(folder: Path, text: str, name: str = "a.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_every_token_is_in_one_place(tmp_path: Path, tokenizer) -> None:
    found = load_dataset(write(tmp_path, TEXT), tokenizer, Rendering(16), 10)
    assert found.holdout.tokens.shape == (10, 16)
    rows = sorted([*found.train.tokens.tolist(), *found.holdout.tokens.tolist()])
    stream = [*tokenizer(TEXT)["input_ids"], tokenizer.eos_token_id]
    assert rows == sorted(stream[at : at + 16] for at in range(0, len(stream) - 15, 16))


def test_a_small_text_keeps_most_for_training(tmp_path: Path, tokenizer) -> None:
    found = load_dataset(write(tmp_path, TEXT[:600]), tokenizer, Rendering(16), 1000)
    assert len(found.holdout) <= len(found.train) / 4
    assert len(found.holdout) >= 1


def test_too_little_is_said_in_tokens(tmp_path: Path, tokenizer) -> None:
    with pytest.raises(FallowError, match="at least 64") as caught:
        load_dataset(write(tmp_path, "Too short."), tokenizer, Rendering(32), 4)
    assert caught.value.code == "E1703"


def test_chats_go_through_the_models_template(tmp_path: Path, tokenizer) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Home."}]})
    found = load_dataset(write(tmp_path, f"{line}\n" * 20, "a.jsonl"), tokenizer, Rendering(40), 1)
    text = tokenizer.decode(found.train.tokens.reshape(-1))
    assert "<|user|>Where?<end><|assistant|>Home.<end>" in text


@pytest.mark.parametrize("template", ["", "{{ raise_exception('no') }}", "{% for x in"])
def test_a_template_that_is_missing_or_refuses(tmp_path: Path, tokenizer, template: str) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "Where?"}]})
    kept, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        with pytest.raises(FallowError) as caught:
            load_dataset(write(tmp_path, line, "a.jsonl"), tokenizer, Rendering(8), 1)
    finally:
        tokenizer.chat_template = kept
    assert caught.value.code == ("E1702" if template else "E1712")


def test_long_texts_are_cut_at_line_ends(tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset(write(tmp_path, TEXT), tokenizer, Rendering(16), 4)
    monkeypatch.setattr(plain, "PART_CHARS", 100)
    pieces = load_dataset(write(tmp_path, TEXT), tokenizer, Rendering(16), 4)
    assert (whole.train.tokens == pieces.train.tokens).all()


def rows_of_one(count: int) -> TokenRows:
    tokens = np.arange(count, dtype=np.int32)[:, None]
    return TokenRows(tokens, np.ones_like(tokens, dtype=np.bool_), np.zeros_like(tokens))


TABLE = Dataset(rows_of_one(23), rows_of_one(1))


def taken(shard: int, shards: int, steps: int, seed: int = 7) -> list[int]:
    places = (BatchPosition(seed, shard, shards, step) for step in range(steps))
    return [int(x) for place in places for x in batch(TABLE, place, 2).tokens[:, 0]]


def test_shards_share_the_data_out_and_go_around() -> None:
    laps = [taken(shard, 4, 3) for shard in range(4)]
    assert sorted(x for lap in laps[:3] for x in lap[:6]) == sorted(x for x in range(23) if x % 4 != 3)
    assert sorted(laps[3][:5]) == [3, 7, 11, 15, 19]
    assert taken(0, 4, 6)[6:] != taken(0, 4, 6)[:6]
    assert sorted(taken(0, 4, 6)[6:]) == sorted(taken(0, 4, 6)[:6])


def test_a_batch_is_a_function_of_its_place() -> None:
    assert taken(1, 4, 3) == taken(1, 4, 3)
    assert taken(1, 4, 3) != taken(1, 4, 3, seed=8)
    alone = batch(TABLE, BatchPosition(7, 1, 4, 2), 2).tokens[:, 0]
    assert alone.tolist() == taken(1, 4, 3)[4:]


def test_more_shards_than_sequences() -> None:
    assert {x for shard in range(60) for x in taken(shard, 60, 1)} == set(range(23))
