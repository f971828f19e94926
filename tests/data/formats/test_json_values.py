"""JSON, and what somebody meant to be JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.making import failure, put


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('[{"text": "a"}, {"text": "b"', "line 1 begins an object that has no end"),
        ('[{"text": "a"},\n{"text": "b"}\n', "the array does not end"),
        ("{'text': 'a'}\n", "double quotes"),
        ('["one", "two"]', "line 1 is no JSON object"),
        ('[{"text": "a"}, 7, {"text": "b"}]', "something between rows"),
        ('[{"text": "a"}] and more', "something between rows"),
        ('[{"text": "a"}{"text": "b"}]', "something between rows"),
        ('[{"text": "a"},]', "something between rows"),
        ('{"text": "a"}\n{oops\n', "line 2 is no JSON"),
        ('[\n{"text": "a"},\n{"text": b}]', "line 3 is no JSON"),
        ('[\n{\n"text": "a",\n"x": y\n}]', "line 4 is no JSON"),
        (json.dumps({"data": [{"text": "a"}, {"text": "b"}]}), "give that list alone"),
        ('{"text": "\\ud800"}\n', "line 1 holds half of a character"),
        ('{"a":' * 100_000, "nested deeper"),
    ],
)
def test_what_looks_like_json_is_no_text(tmp_path: Path, data: str | bytes, words: str) -> None:
    error = failure(put(tmp_path, "data", data))
    assert error.code == "E1702"
    assert words in error.what
