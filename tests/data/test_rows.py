"""Rows know where they came from."""

from __future__ import annotations

from pathlib import Path

from tests.data.making import CHATS, ROWS, lines, put, read

from fallow.data.rows import Completion, Prose, RowError, UnbuiltError, refusal


def test_rows_of_several_shapes_and_empty_ones(tmp_path: Path) -> None:
    data = lines([{"text": "plain", "id": 7}, {"text": ""}, {"prompt": "a", "completion": "b"}, ROWS[0]])
    rows, reading = read(put(tmp_path, "data", data))
    assert rows == [Prose("plain"), Completion("a", "b"), CHATS[0]]
    assert (reading.rows, reading.empty) == (3, 1)
    assert [row.place for row in rows] == ["data, line 1", "data, line 3", "data, line 4"]


def test_a_refusal_says_where_and_what_would_be_taken() -> None:
    error = refusal("a.jsonl, line 3", RowError(", field text: is null", '{"text": "a"}'))
    assert error.what == "a.jsonl, line 3, field text: is null."
    assert error.cause == 'A row that is taken looks like this: {"text": "a"}'
    assert refusal("a", UnbuiltError("is none")).code == "E1711"
