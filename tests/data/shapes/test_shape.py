"""Fields of rows."""

from __future__ import annotations

import pytest

from fallow.data.rows import RowError
from fallow.data.shapes.shape import kind_of, list_of, text_of


def test_lists_may_stand_as_json() -> None:
    assert list_of({"a": "[1]"}, "a") == list_of({"a": [1]}, "a") == [1]
    for bad in ("[1", "{}", None, 3):
        with pytest.raises(RowError, match="field a"):
            list_of({"a": bad}, "a")


def test_what_values_are_called() -> None:
    assert [kind_of(value) for value in (None, True, "", [], {}, 1, 1.5, b"")] == [
        "null", "true", "a string", "a list", "an object", "a number", "a number", "a bytes",
    ]  # fmt: skip
    with pytest.raises(RowError, match="is a number, not a string"):
        text_of({"a": 1}, "a")
