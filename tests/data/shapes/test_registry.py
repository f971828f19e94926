"""What rows may look like, and what is said of those that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.making import ANSWER, USER, failure, put

from fallow.data.shapes.registry import SHAPES, read_row


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.example], ids=lambda shape: shape.name)
def test_every_example_is_of_its_shape(shape) -> None:
    assert read_row(json.loads(shape.example), "here")[1] == shape.name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, ", field messages: is empty"),
        ({"messages": 3}, ", field messages: is a number, not a list"),
        ({"messages": "hello"}, ", field messages: is a string, and no list as JSON"),
        ({"messages": ["hi"]}, ", message 1: is a string, not an object"),
        ({"messages": [USER, {"role": "king", "content": ""}]}, ", message 2, field role: is 'king'; there are"),
        ({"messages": [{"content": ""}]}, ", message 1, field role: is null"),
        ({"messages": [{"role": "user"}]}, ", message 1, field content: is missing"),
        ({"messages": [USER, {"role": "assistant", "content": None}]},
         ", message 2, field content: is null, and there are no tool_calls"),
        ({"messages": [{"role": "user", "content": 7}]}, ", message 1, field content: is a number"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
         "part that is of type 'image_url'; only text"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, ", message 2, field weight: is 0.5"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, ", message 2, field weight: is True"),
        ({"messages": [USER, {**ANSWER, "tool_calls": 1}]}, ", message 2, field tool_calls: is a number"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}]},
         ", message 2, tool call 1, field arguments: is a string, and no JSON"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"function": {"arguments": {}}}]}]},
         "tool call 1, field name: there is none"),
        ({"messages": [USER, {**ANSWER, "function_call": {"name": "f"}}]}, "write it as tool_calls"),
        ({"messages": [USER, ANSWER], "functions": [{}]}, "write them as tools"),
        ({"messages": [USER, ANSWER], "tools": [1]}, ", field tools: number 1 is a number"),
        ({"text": None}, ", field text: is null, not a string"),
        ({"prompt": "a", "completion": 1}, ", field completion: is a number"),
        ({"prompt": [USER], "completion": "b"}, ", field completion: is a string, and no list"),
        ({"instruction": "a", "output": ["b"]}, ", field output: is a list"),
        ({"input_ids": [1, 2]}, "token numbers"),
        ({"promt": "a", "completion": "b"},
         "has the fields promt, completion; no row is known by these. The nearest has completion and prompt"),
        ({"message": [USER]}, "The nearest has messages"),
        ({}, "has no fields; no row"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_line_message_and_field(tmp_path: Path, fields: dict, words: str) -> None:
    error = failure(put(tmp_path, "a.jsonl", '{"text": "fine"}\n' + json.dumps(fields)))
    assert error.code == "E1702"
    assert error.what.startswith("a.jsonl, line 2")
    assert words in error.what
    example = error.cause.partition(": ")[2]
    assert read_row(json.loads(example), "")[0]
