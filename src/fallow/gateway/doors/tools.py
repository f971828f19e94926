"""Tools, forms of answers and ways of choosing tokens, from any door's body to the task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic import Field

from fallow.errors import fail
from fallow.gateway.doors.fields import BodyFields, SharedFields
from fallow.kinds.generate.tasks import Generate

Choice = str
"""The tool that must be called, "" for none in particular."""
AUTO, REQUIRED = "auto", "required"
BIAS_UNIT = 100
MOST_BIAS = 100


class Tool(BodyFields):
    """A function that the model may call. Its arguments always follow the schema, `strict` or not."""

    harmless = frozenset({"strict", "cache_control"})
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str = ""
    parameters: dict[str, Any] = Field(default={})


def tools_text(tools: Sequence[Tool]) -> str:
    """Tools as models' templates read them."""
    listed = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    return json.dumps(listed, ensure_ascii=False) if listed else ""


def named(tools: Sequence[Tool], choice: Choice) -> str:
    """`choice`, which must be one of the tools. Raises UsageError E1904."""
    if choice not in {tool.name for tool in tools}:
        raise fail("E1904", f"tool_choice: there is no tool called {choice[:64]!r}.")
    return REQUIRED


def guide_of(tools: Sequence[Tool], calls: str, choice: Choice, parallel: bool, form: Mapping[str, Any]) -> str:
    """What an answer must look like: `calls` (auto or required) of tools, or only of `choice`; or `form`. Raises
    UsageError E1904 for a choice without tools, and for both at once."""
    if not tools:
        if calls == REQUIRED:
            raise fail("E1904", "tool_choice: there are no tools.")
        return json.dumps(form, ensure_ascii=False) if form else ""
    if form:
        raise fail("E1904", "response_format: not supported beside tools.")
    return json.dumps({"calls": {"name": choice} if choice else calls, "parallel": parallel})


def sampled(task: Generate, asked: SharedFields) -> Generate:
    """`task` with how its tokens are chosen. Raises UsageError E1904 for a bias or stop string that is none."""
    try:
        bias = tuple((int(token), round(value * BIAS_UNIT)) for token, value in asked.logit_bias.items())
    except (ValueError, OverflowError):
        raise fail("E1904", "logit_bias: it maps token numbers to -100..100.") from None
    if any(abs(value) > MOST_BIAS * BIAS_UNIT or not 0 <= token < 1 << 32 for token, value in bias):
        raise fail("E1904", "logit_bias: it maps token numbers to -100..100.")
    return msgspec.structs.replace(
        task, temperature=f"{asked.temperature:g}", top_p=f"{asked.top_p:g}", stop=asked.stops(), bias=bias,
        frequency_penalty=f"{asked.frequency_penalty:g}", presence_penalty=f"{asked.presence_penalty:g}",
    )  # fmt: skip
