"""What was read is shown before the price, and what cannot be learned from is refused before anybody hears of it."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.files import hf_model
from tests.cli.terminal import Terminal

from fallow.wire.local import ImportPath, SubmitJob

CHATS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"A number, {n}."}]}
    for n in range(20)
]
LONG = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "word " * 300}]}
UNANSWERED = {"messages": [{"role": "user", "content": "Anybody?"}]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hf_model(tmp_path / "model")


def train(terminal: Terminal, model: Path, rows: list[dict[str, Any]], *more: str, name: str = "chats.jsonl") -> Any:
    data = model.parent / name
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return terminal.fallow("train", "--model", model, "--data", data, "--budget", "2", *more)


def test_rows_tokens_and_the_first_row_with_its_mask_come_before_the_price(terminal: Terminal, model: Path) -> None:
    said = train(terminal, model, CHATS, "--yes")
    assert said.code == 0
    shown = said.err[: said.err.index("checks included")]
    assert "Read 20 rows of messages (JSON, " in shown
    assert " are learned (32 %), in 7 sequences of 128." in shown
    assert "The first row, what is learned in ⟦⟧:\n  user: What is 0?<end>assistant: ⟦A number, 0.<end>⟧\n" in shown


def test_what_is_lost_is_counted(terminal: Terminal, model: Path) -> None:
    said = train(terminal, model, [*CHATS, LONG, UNANSWERED], "--length", "64", "--dry-run").err
    assert "Rows cut at 64 tokens (a larger --length keeps their ends): 1." in said
    assert "Rows with nothing to learn, left out: 1." in said


def test_programs_get_all_of_it(terminal: Terminal, model: Path) -> None:
    said = json.loads(train(terminal, model, [*CHATS, {"text": ""}], "--dry-run", "--json").out)
    data = said["data"]
    assert (data["rows"], data["rows_empty"], data["shapes"], data["formats"]) == (20, 1, {"messages": 20}, {"JSON": 1})
    assert (data["sequences"], data["sequence_tokens"], data["rows_cut"]) == (7, 128, 0)
    assert 0 < data["learned_tokens"] < data["tokens"]
    assert [part["learned"] for part in data["example"]] == [False, True]
    assert json.loads(train(terminal, model, CHATS, "--yes", "--json").out)["data"]["rows"] == 20


def test_the_length_follows_the_chats_unless_it_is_given(terminal: Terminal, model: Path) -> None:
    middling = [{"messages": [CHATS[0]["messages"][0], {"role": "assistant", "content": "x" * 200}]}] * 9
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    for more, length in (((), 256), (("--length", "64"), 64)):
        train(terminal, model, [*CHATS, *middling], "--yes", "--loss", "all", *more)
        recipe = terminal.node.requests(SubmitJob)[-1].spec.work.recipe
        assert (recipe.sequence_tokens, recipe.loss) == (length, "all")


def test_what_strangers_could_not_read_is_written_for_them(terminal: Terminal, model: Path) -> None:
    said = train(terminal, model, CHATS, "--yes", name="chats.jsonl.gz")
    assert "Read 20 rows of messages (JSON" in said.err
    sent = [Path(request.path) for request in terminal.node.requests(ImportPath)]
    (data,) = [path for path in sent if path.suffix == ".jsonl"]
    assert data.parent == terminal.home / "data"
    assert [json.loads(line) for line in data.read_text().splitlines()] == CHATS


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "E1711"),
        ([*CHATS, {"messages": [{"role": "assistant", "content": None}]}], "E1702"),
        ([UNANSWERED] * 5, "E1703"),
        ([{"messages": "hello"}], "E1702"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_first(
    terminal: Terminal, model: Path, rows: list[dict], code: str
) -> None:
    said = train(terminal, model, rows, "--yes")
    assert (said.code, said.error_code) == (2, code)
    assert not terminal.node.requests(ImportPath)


def test_chats_for_a_model_that_knows_none(terminal: Terminal, model: Path) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    said = train(terminal, model, CHATS, "--yes")
    assert (said.code, said.error_code) == (2, "E1712")
    assert not terminal.node.requests(ImportPath)


def test_without_the_packages_rows_are_shown_all_the_same(
    terminal: Terminal, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = train(terminal, model, CHATS, "--dry-run")
    assert "Read 20 rows of messages" in said.err
    assert "pip install 'fallow[train]'" in said.err
