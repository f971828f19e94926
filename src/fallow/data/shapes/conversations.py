"""Rows that are chats, in OpenAI's words (`role`, `content`) or ShareGPT's (`from`, `value`)."""

from __future__ import annotations

from typing import Any, cast

from fallow.data.json_input import parse_json
from fallow.data.rows import Chat, Example, MessageFields, RowError
from fallow.data.shapes.shape import Fields, RowShape, kind_of, list_of

ROLES = {
    "system": "system", "developer": "developer", "user": "user", "assistant": "assistant", "tool": "tool",
    "human": "user", "gpt": "assistant", "model": "assistant", "observation": "tool", "function_call": "assistant",
}  # fmt: skip
"""What they are called in files, and what a template knows them as."""
KEPT = ("name", "tool_call_id", "reasoning_content", "thinking")


class Messages(RowShape):
    """A chat."""

    name = "messages"
    keys = (frozenset({"messages"}),)
    example = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}'

    def read(self, fields: Fields) -> Example:
        return Chat(_messages(fields, "messages"), _tools(fields))


class Conversations(RowShape):
    """A chat as ShareGPT keeps it."""

    name = "ShareGPT"
    keys = (frozenset({"conversations"}), frozenset({"conversation"}))
    example = '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}'

    def read(self, fields: Fields) -> Example:
        name = "conversations" if "conversations" in fields else "conversation"
        messages = _messages(fields, name)
        if isinstance(fields.get("system"), str) and fields["system"] and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": fields["system"]}, *messages)
        return Chat(messages, _tools(fields))


class PromptMessages(RowShape):
    """A chat in two parts, of which only the second is learned."""

    name = "prompt and completion of messages"
    keys = (frozenset({"prompt", "completion"}),)
    example = (
        '{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello!"}]}'
    )

    def meant(self, fields: Fields) -> bool:
        """Whether either part is a list."""
        return isinstance(fields["prompt"], list) or isinstance(fields["completion"], list)

    def read(self, fields: Fields) -> Example:
        prompt, answer = _messages(fields, "prompt"), _messages(fields, "completion")
        return Chat((*prompt, *answer), _tools(fields), learn_from=len(prompt))


def _messages(fields: Fields, field: str) -> tuple[MessageFields, ...]:
    if fields.get("functions") or fields.get("function_call"):
        raise RowError(", field functions: is OpenAI's old way; write them as tools")
    found = list_of(fields, field)
    if not found:
        raise RowError(f", field {field}: is empty")
    return tuple(_message(number, message) for number, message in enumerate(found, 1))


def _message(number: int, raw: object) -> MessageFields:
    where = f", message {number}"
    if not isinstance(raw, dict):
        raise RowError(f"{where}: is {kind_of(raw)}, not an object")
    fields = cast(Fields, raw)
    if fields.get("function_call"):
        raise RowError(f"{where}, field function_call: is OpenAI's old way; write it as tool_calls")
    word = "role" if fields.get("role") is not None else "from"
    told = fields.get(word)
    role = ROLES.get(told.strip().lower(), "") if isinstance(told, str) else ""
    if not role:
        said = f"is {told[:40]!r}" if isinstance(told, str) else f"is {kind_of(told)}"
        raise RowError(f"{where}, field role: {said}; there are system, developer, user, assistant and tool")
    named = "content" if "content" in fields or "value" not in fields else "value"
    if told == "function_call":
        return {"role": role, "content": "", "tool_calls": [_called(where, fields.get(named))]}
    calls = _calls(where, fields) if role == "assistant" else []
    found: MessageFields = {
        "role": role,
        "content": _content(f"{where}, field {named}", fields, named, bare=bool(calls)),
    }
    if calls:
        found["tool_calls"] = calls
    found |= {name: fields[name] for name in KEPT if isinstance(fields.get(name), str)}
    weight = fields.get("weight")
    if isinstance(weight, bool) or weight not in (None, 0, 1):
        raise RowError(f"{where}, field weight: is {str(weight)[:40]}; it is 0 or 1")
    return found if weight is None or weight else found | {"weight": 0}


def _content(where: str, fields: Fields, name: str, *, bare: bool) -> str:
    """What a message says. `bare`: it may say nothing."""
    value = fields.get(name)
    if value is None and bare:
        return ""
    if isinstance(value, str):
        return value
    if value is None:
        raise RowError(f"{where}: is {'null' if name in fields else 'missing'}, and there are no tool_calls")
    if not isinstance(value, list):
        raise RowError(f"{where}: is {kind_of(value)}, not a string")
    texts: list[str] = []
    for part in cast(list[Any], value):
        kind = cast(Fields, part).get("type") if isinstance(part, dict) else None
        text: object = cast(Fields, part).get("text") if isinstance(part, dict) else part
        if kind not in (None, "text") or not isinstance(text, str):
            what = f"of type {str(kind)[:40]!r}" if kind else kind_of(cast(object, part))
            raise RowError(f"{where}: has a part that is {what}; only text can be trained on")
        texts.append(text)
    return "".join(texts)


def _calls(where: str, fields: Fields) -> list[Any]:
    value = fields.get("tool_calls")
    if value is None or value == []:
        return []
    if not isinstance(value, list):
        raise RowError(f"{where}, field tool_calls: is {kind_of(value)}, not a list")
    return [_call(f"{where}, tool call {at}", call) for at, call in enumerate(cast(list[Any], value), 1)]


def _call(where: str, raw: object) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise RowError(f"{where}: is {kind_of(raw)}, not an object")
    call = cast(Fields, raw)
    function = cast(Fields, call["function"]) if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RowError(f"{where}, field name: there is none")
    arguments: object = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments) if arguments.strip() else {}
        except ValueError as error:
            raise RowError(f"{where}, field arguments: is a string, and no JSON ({str(error)[:100]})") from error
    if not isinstance(arguments, dict | None):
        raise RowError(f"{where}, field arguments: is {kind_of(arguments)}, not an object")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return identity | {"type": "function", "function": {"name": name, "arguments": cast(Fields, arguments or {})}}


def _called(where: str, text: object) -> dict[str, Any]:
    """A call that stands as JSON where ShareGPT has what was said."""
    try:
        return _call(f"{where}, function call", parse_json(text) if isinstance(text, str) else text)
    except ValueError as error:
        raise RowError(f"{where}, field value: is no call as JSON ({str(error)[:100]})") from error


def _tools(fields: Fields) -> tuple[dict[str, Any], ...]:
    if fields.get("tools") in (None, "", []):
        return ()
    found = list_of(fields, "tools")
    for number, tool in enumerate(found, 1):
        if not isinstance(tool, dict):
            raise RowError(f", field tools: number {number} is {kind_of(tool)}, not an object")
    return tuple(cast(list[dict[str, Any]], found))
