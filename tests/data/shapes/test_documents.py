"""Rows that are no chats."""

from __future__ import annotations

from fallow.data.rows import Completion, Prose
from fallow.data.shapes.registry import read_row


def test_they_are_taken_as_they_are() -> None:
    assert read_row({"text": " a\n"}, "")[0] == Prose(" a\n")
    assert read_row({"prompt": "a ", "completion": " b"}, "")[0] == Completion("a ", " b")
