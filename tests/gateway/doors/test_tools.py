"""Tools and forms, from a body to the task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fallow.errors import FallowError
from fallow.gateway.doors.tools import REQUIRED, Tool, guide_of, named, tools_text

TOOL = Tool(name="f", description="d", parameters={"type": "object"})


def test_a_guide_is_of_calls_or_of_a_form_and_never_of_both() -> None:
    assert json.loads(guide_of([TOOL], "auto", "", True, {})) == {"calls": "auto", "parallel": True}
    assert json.loads(guide_of([TOOL], REQUIRED, "f", False, {})) == {"calls": {"name": "f"}, "parallel": False}
    assert json.loads(guide_of([], "auto", "", True, {"json": True})) == {"json": True}
    assert guide_of([], "auto", "", True, {}) == ""


@pytest.mark.parametrize(("tools", "calls", "form"), [([], REQUIRED, {}), ([TOOL], "auto", {"json": True})])
def test_what_cannot_be_kept_is_refused(tools: list[Tool], calls: str, form: dict[str, Any]) -> None:
    with pytest.raises(FallowError) as refused:
        guide_of(tools, calls, "", True, form)
    assert refused.value.code == "E1904"


def test_only_a_tool_that_is_there_can_be_chosen() -> None:
    assert named([TOOL], "f") == REQUIRED
    with pytest.raises(FallowError, match="no tool called 'g'"):
        named([TOOL], "g")


def test_tools_are_told_as_templates_read_them() -> None:
    assert json.loads(tools_text([TOOL])) == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert tools_text([]) == ""
