"""Tools, and the turns of a chat that speak of them, as chat templates know them or, where a model's template knows
none, in words: the tools in the system's turn, calls as they are written in an answer, their results as a user's turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from fallow.data.json_input import parse_json
from fallow.errors import fail
from fallow.kinds.generate.tasks import CALL_CLOSE, CALL_OPEN, ChatTurn

MAX_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
OF_A_TURN = frozenset({"tool_calls", "tool_call_id", "name", "reasoning_content"})
INTRODUCTION = (
    "You can call tools. To call one, write a line with a JSON object that has its name and its arguments, which "
    f'follow its schema: {CALL_OPEN}{{"name": "the tool", "arguments": {{...}}}}{CALL_CLOSE} '
    "Results come in the next turn. The tools, one a line:"
)
JsonObject = dict[str, Any]
ChatHistory = list[JsonObject]


def read_tools(text: str) -> list[JsonObject]:
    """The tools of a request: of each its name, description and the JSON schema of its parameters. Errors: E1904."""
    listed = _json("tools", text) if text else []
    if not isinstance(listed, list) or len(listed) > MAX_TOOLS:
        raise fail("E1904", f"tools is a list of at most {MAX_TOOLS}.")
    tools = [_tool(one) for one in listed]
    if len({tool["name"] for tool in tools}) != len(tools):
        raise fail("E1904", "Two of the tools have the same name.")
    return tools


def _tool(one: Any) -> JsonObject:
    function = one.get("function") if isinstance(one, dict) and one.get("type") == "function" else None
    if not isinstance(function, dict):
        raise fail("E1904", 'A tool is {"type": "function", "function": {"name": ..., "parameters": {...}}}.')
    name, about = function.get("name"), function.get("description") or ""
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(about, str):
        raise fail("E1904", "A tool has a name of 1 to 128 letters, digits, '_', '-', '.' or ':', and a description.")
    return {"name": name, "description": about, "parameters": function.get("parameters") or {"type": "object"}}


def read_object(name: str, text: str) -> JsonObject:
    """A JSON object of a stranger. Errors: E1904."""
    found = _json(name, text)
    if not isinstance(found, dict):
        raise fail("E1904", f"{name} is a JSON object.")
    return cast(JsonObject, found)


def _json(name: str, text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise fail("E1904", f"{name} is no JSON: {str(error)[:100]}.") from error


# turns ----------------------------------------------------------------------------------------------------------------


def read_messages(turns: Sequence[ChatTurn]) -> ChatHistory:
    """Turns as chat templates know them. Errors: E1904 for more than they know."""
    messages: ChatHistory = []
    for turn in turns:
        more = read_object("more", turn.more) if turn.more else {}
        if unknown := more.keys() - OF_A_TURN:
            raise fail("E1904", f"A message's {min(unknown)[:40]!r} is unknown.")
        if "tool_calls" in more:
            more["tool_calls"] = [_call(one) for one in _some(more["tool_calls"])]
        messages.append({"role": turn.role, "content": turn.content, **more})
    return messages


def _some(calls: Any) -> list[Any]:
    if not isinstance(calls, list):
        raise fail("E1904", "tool_calls is a list.")
    return calls


def _call(call: Any) -> JsonObject:
    """A call with its arguments as what they are: clients send them as text, and templates write JSON of them."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise fail("E1904", 'A call of a tool is {"function": {"name": ..., "arguments": ...}}.')
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = read_object("a call's arguments", arguments or "{}")
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def knows_tools(template: str) -> bool:
    """Whether a chat template tells of tools, and has calls written as we read them."""
    return CALL_OPEN in template and re.search(r"\btools\b", template) is not None


def without_tools(messages: ChatHistory, tools: Sequence[JsonObject]) -> ChatHistory:
    """The same chat for a template that knows roles and contents only."""
    told: ChatHistory = []
    for message in messages:
        role, content = message["role"], message["content"]
        for call in message.get("tool_calls", ()):
            content += f"\n{CALL_OPEN}{json.dumps(call['function'])}{CALL_CLOSE}"
        if role == "tool":
            role, content = "user", f"<tool_response>{content}</tool_response>"
            if told and told[-1]["role"] == "user" and told[-1]["content"].endswith("</tool_response>"):
                content = f"{told.pop()['content']}\n{content}"
        told.append({"role": role, "content": content.strip() if message.get("tool_calls") else content})
    if not tools:
        return told
    words = "\n".join((INTRODUCTION, *map(json.dumps, tools)))
    if told and told[0]["role"] == "system":
        return [{"role": "system", "content": f"{told[0]['content']}\n\n{words}"}, *told[1:]]
    return [{"role": "system", "content": words}, *told]


def for_templates(tools: Sequence[JsonObject]) -> list[JsonObject]:
    """The tools in the form that templates expect."""
    return [{"type": "function", "function": tool} for tool in tools]
