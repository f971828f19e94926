"""Tools and their calls, in a chat that a template is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import ChatTurn
from fallow.workloads.tools import for_templates, knows_tools, read_messages, read_tools, without_tools

CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
TURNS = (
    ChatTurn("system", "Be brief."),
    ChatTurn("user", "What time is it?"),
    ChatTurn("assistant", "", json.dumps({"tool_calls": [CALL, CALL]})),
    ChatTurn("tool", "12:00", '{"tool_call_id": "c1"}'),
    ChatTurn("tool", "12:01", '{"tool_call_id": "c2"}'),
)
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}


def test_what_templates_are_given() -> None:
    messages = read_messages(TURNS)
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert messages[2]["tool_calls"][0]["function"] == {"name": "now", "arguments": {"zone": "UTC"}}
    assert messages[3] == {"role": "tool", "content": "12:00", "tool_call_id": "c1"}
    tools = read_tools(json.dumps([TOOL]))
    told = {"name": "now", "description": "", "parameters": {"type": "object"}}
    assert for_templates(tools) == [{"type": "function", "function": told}]


def test_a_template_that_knows_no_tools_is_told_in_words() -> None:
    tools = read_tools(json.dumps([TOOL]))
    told = without_tools(read_messages(TURNS), tools)
    assert [turn["role"] for turn in told] == ["system", "user", "assistant", "user"]
    assert told[0]["content"].startswith("Be brief.\n\nYou can call tools.")
    assert told[0]["content"].endswith(json.dumps(tools[0]))
    call = '<tool_call>{"name": "now", "arguments": {"zone": "UTC"}}</tool_call>'
    assert told[2]["content"] == f"{call}\n{call}"
    assert told[3]["content"] == "<tool_response>12:00</tool_response>\n<tool_response>12:01</tool_response>"
    assert without_tools([{"role": "user", "content": "hi"}], tools)[0]["role"] == "system"
    assert without_tools([{"role": "user", "content": "hi"}], []) == [{"role": "user", "content": "hi"}]


def test_which_templates_know_tools() -> None:
    assert knows_tools("{% if tools %}<tool_call>{% endif %}")
    assert not knows_tools("{% if tools %}[TOOL_CALLS]{% endif %}")
    assert not knows_tools("<tool_call>")


@pytest.mark.parametrize(
    "tools",
    [
        "{}",
        "[1]",
        "[" * 100,
        json.dumps([TOOL, TOOL]),
        json.dumps([{"type": "retrieval"}]),
        json.dumps([{"type": "function", "function": {"name": "a b"}}]),
        json.dumps([{"type": "function", "function": {"name": "a", "description": 5}}]),
        json.dumps([{"type": "function", "function": {"name": f"f{n}"}} for n in range(200)]),
    ],
)
def test_tools_that_are_none(tools: str) -> None:
    with pytest.raises(FallowError) as caught:
        read_tools(tools)
    assert caught.value.code == "E1904"


@pytest.mark.parametrize(
    "more",
    [
        {"zork": 1},
        {"tool_calls": 1},
        {"tool_calls": [1]},
        {"tool_calls": [{"function": {"name": 1}}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]},
    ],
)
def test_more_than_templates_know(more: Any) -> None:
    with pytest.raises(FallowError) as caught:
        read_messages([ChatTurn("assistant", "", json.dumps(more))])
    assert caught.value.code == "E1904"
