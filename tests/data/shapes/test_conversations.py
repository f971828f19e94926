"""Rows that are chats."""

from __future__ import annotations

import json

import pytest
from tests.data.making import ANSWER, USER

from fallow.data.rows import Chat
from fallow.data.shapes.registry import read_row

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def row_of(fields: dict) -> object:
    return read_row(fields, "")[0]


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"messages": [USER, ANSWER]}, [USER, ANSWER]),
        ({"messages": json.dumps([USER, ANSWER])}, [USER, ANSWER]),
        ({"messages": [USER, ANSWER], "text": "rendered before"}, [USER, ANSWER]),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "H"}, "i"]}, ANSWER]}, [USER, ANSWER]),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
         [USER, {"role": "assistant", "content": "", "tool_calls": [CALLED]}]),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL["function"]]}]},
         [USER, {"role": "assistant", "content": "", "tool_calls": [{k: v for k, v in CALLED.items() if k != "id"}]}]),
        ({"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
         [USER, {**ANSWER, "weight": 0}, USER, ANSWER]),
        ({"messages": [{"role": "developer", "content": "Be kind."}, USER, ANSWER]},
         [{"role": "developer", "content": "Be kind."}, USER, ANSWER]),
        ({"messages": [{**USER, "name": "Al", "refusal": None, "x": 1}, ANSWER]}, [{**USER, "name": "Al"}, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}, [USER, ANSWER]),
        ({"conversations": [USER, ANSWER]}, [USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], "system": "Be kind."},
         [{"role": "system", "content": "Be kind."}, USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Hi"},
                            {"from": "function_call", "value": json.dumps(CALL["function"])},
                            {"from": "observation", "value": "2"}]},
         [USER, {"role": "assistant", "content": "", "tool_calls": [{k: v for k, v in CALLED.items() if k != "id"}]},
          {"role": "tool", "content": "2"}]),
    ],
)  # fmt: skip
def test_chats(fields: dict, messages: list) -> None:
    found = row_of(fields)
    assert isinstance(found, Chat)
    assert list(found.messages) == messages


def test_tools_as_a_list_and_as_json() -> None:
    for tools in ([TOOL], json.dumps([TOOL])):
        assert row_of({"messages": [USER, ANSWER], "tools": tools}) == Chat((USER, ANSWER), (TOOL,))
    assert row_of({"messages": [USER, ANSWER], "tools": None}) == Chat((USER, ANSWER))


def test_a_chat_in_two_parts() -> None:
    assert row_of({"prompt": [USER], "completion": [ANSWER]}) == Chat((USER, ANSWER), (), 1)
