"""Calls of tools, told apart from what is said, wherever the text is cut into pieces."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.gateway.calls import Call, CallReader, read_calls
from fallow.kinds.generate.tasks import CALL_CLOSE, CALL_OPEN

CALL = f'{CALL_OPEN}{{"name": "f", "arguments": {{"a": "<b>{CALL_CLOSE}"}}}}{CALL_CLOSE}'


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@given(
    st.lists(st.sampled_from(["Hi. ", "a < b", CALL, "<tool", "\n", "\u00e9"]), max_size=6),
    st.lists(st.integers(0, 500)),
)
def test_pieces_change_nothing(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    reader, said = CallReader(), []
    for piece in split(text, cuts):
        said += reader.feed(piece)
    said += reader.end()
    calls = [item for item in said if isinstance(item, Call)]
    assert len(calls) == parts.count(CALL) == reader.calls
    assert all(call.name == "f" and json.loads(call.arguments) == {"a": f"<b>{CALL_CLOSE}"} for call in calls)
    spoken = "".join(item for item in said if isinstance(item, str))
    assert spoken.split() == text.replace(CALL, "").split()


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"arguments": {}}', "7", '{"name": "f", "arguments": ', "[" * 100_000]
)
def test_what_is_no_call_is_told_as_it_is(body: str) -> None:
    assert read_calls(f"{CALL_OPEN}{body}{CALL_CLOSE}") == (f"{CALL_OPEN}{body}{CALL_CLOSE}", [])


def test_a_deep_call_ends_nobody_however_deep_the_process_lets_python_go() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1 << 20)
    try:
        assert read_calls(CALL_OPEN + "[" * 200_000 + CALL_CLOSE)[1] == []
    finally:
        sys.setrecursionlimit(limit)


def test_the_beginning_of_a_call_that_was_cut_off_is_what_was_said() -> None:
    assert read_calls(f'Hm. {CALL_OPEN}{{"na') == (f'Hm. {CALL_OPEN}{{"na', [])
    assert read_calls("Hm. <tool") == ("Hm. <tool", [])
