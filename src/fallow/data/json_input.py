"""JSON from files of strangers. Python's parser recurses in C: with the recursion limit raised, as some libraries do
when they are imported, deep nesting ends the process. So the depth is looked at first. And it takes words for numbers
that JSON has not (`NaN`, `Infinity`)."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def parse_json(data: str | bytes) -> Any:
    """What `data` says. Raises ValueError for what is no JSON, or is nested deeper than MAX_DEPTH."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    if text.count("[") + text.count("{") > MAX_DEPTH:
        depth = 0
        for found in _BRACKET.finditer(_STRING.sub("", text)):
            depth += 1 if found.group() in "[{" else -1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    return json.loads(text, parse_constant=_no_number)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
