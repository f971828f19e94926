"""JSON of strangers: parsed as usual, however deep somebody nests it."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.data.json_input import MAX_DEPTH, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_says_is_read(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == value
        assert parse_json(text.encode()) == value


@given(st.text(alphabet='[]{}",\\ab:1 ', max_size=300))
def test_nonsense_is_a_value_error(text: str) -> None:
    try:
        assert parse_json(text) == json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r".+"):
            json.loads(text)


def test_brackets_within_strings_do_not_count() -> None:
    assert parse_json(json.dumps({"code": "{" * 1000 + '"' + "[" * 1000})) == {"code": "{" * 1000 + '"' + "[" * 1000}


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_ends_no_process(opening: str) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(ValueError, match="nested deeper"):
            parse_json(opening * 200_000)
    finally:
        sys.setrecursionlimit(before)
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
