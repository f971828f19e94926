"""Before anything is spent: what the model will see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.workloads.templates import FORGETFUL, as_read

from fallow.errors import FallowError
from fallow.workloads.data import Rendering, load_dataset
from fallow.workloads.survey import survey


def chat(*said: str) -> dict:
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]}


def put(folder: Path, rows: list[dict]) -> Path:
    (folder / "data").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data"


def test_it_counts_what_the_workers_will_train_on(tmp_path: Path) -> None:
    tokenizer = as_read(tmp_path / "model", FORGETFUL)
    rows = [chat(f"{n}?", "<think>x</think>b", "And?", "<think>y</think>d") for n in range(9)]
    path = put(tmp_path, [*rows, chat("alone"), chat("long", "word " * 100)])
    found = survey(path, tmp_path / "model", 64, "assistant")
    data = load_dataset(path, tokenizer, Rendering(64), 2)
    assert found.sequences == len(data.train) + len(data.holdout)
    assert found.learned == data.train.counted + data.holdout.counted
    assert (found.facts.rows, found.cut, found.unlearned, found.several) == (11, 1, 1, 9)
    assert ("<think>y</think>d<end>\n", True) in found.example


def test_a_length_is_chosen_that_nearly_all_fit(tmp_path: Path) -> None:
    as_read(tmp_path / "model", FORGETFUL)
    assert survey(put(tmp_path, [chat("a", "b")] * 20), tmp_path / "model", 0, "assistant").length == 128
    longer = put(tmp_path, [chat("a", "b" * 200)] * 20)
    assert survey(longer, tmp_path / "model", 0, "assistant").length == 256  # the model's context


def test_what_is_wrong_is_wrong_here_as_well(tmp_path: Path) -> None:
    as_read(tmp_path / "model", None)
    with pytest.raises(FallowError) as caught:
        survey(put(tmp_path, [chat("a", "b")] * 20), tmp_path / "model", 0, "assistant")
    assert caught.value.code == "E1712"
    with pytest.raises(FallowError, match="longer than the 256") as caught:
        survey(put(tmp_path, [chat("a", "b")] * 20), tmp_path / "model", 512, "assistant")
    assert (caught.value.code, caught.value.next_step) == ("E1707", "--length 256")
