"""Calls of tools in the text of an answer. Engines tell a call as text between two marks; clients want it apart from
what is said. A call is told when it is there whole: its arguments are JSON, of which half is of no use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from fallow.kinds.generate.tasks import CALL_CLOSE, CALL_OPEN


@dataclass(frozen=True)
class Call:
    """A tool's name, and its arguments as JSON text."""

    name: str
    arguments: str


Said = str | Call
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
MAX_MARKS = 64
"""How often a call may hold its closing mark; of more, nothing is made."""


class CallReader:
    """Reads the text of one answer, in pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self.calls = 0

    def feed(self, text: str) -> list[Said]:
        """What is sure now: text and whole calls, in order."""
        self._held += text
        said: list[Said] = []
        while True:
            if self._inside:
                if CALL_CLOSE not in self._held or (made := self._whole()) is None:
                    return said
                said.append(made)
                continue
            before, found, after = self._held.partition(CALL_OPEN)
            keep = 0 if found else _overlap(before, CALL_OPEN)
            if ready := before[: len(before) - keep]:
                said += self._spoken(ready)
            self._held = after if found else before[len(before) - keep :]
            if not found:
                return said
            self._inside = True

    def end(self) -> list[Said]:
        """What is left: what began as a call and is none is what was said."""
        rest = (CALL_OPEN if self._inside else "") + self._held
        self._held, self._inside = "", False
        return self._spoken(rest)

    def _spoken(self, text: str) -> list[Said]:
        return [text] if text and (text.strip() or not self.calls) else []

    def _whole(self) -> Call | None:
        """The call that has begun, if all of it is there: a string in its arguments may hold the closing mark."""
        end = -1
        for _ in range(MAX_MARKS):
            end = self._held.find(CALL_CLOSE, end + 1)
            if end < 0:
                break
            if (made := _read(self._held[:end])) is not None:
                self._held, self._inside = self._held[end + len(CALL_CLOSE) :], False
                self.calls += 1
                return made
        return None


def _read(body: str) -> Call | None:
    try:  # a parser with a depth of its own: libraries raise Python's so far that the process ends first
        call = _JSON.validate_json(body)
        return Call(str(call["name"]), json.dumps(call.get("arguments", {}), ensure_ascii=False, allow_nan=False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_calls(text: str) -> tuple[str, list[Call]]:
    """-> what a whole answer says beside its calls, and the calls."""
    reader = CallReader()
    said = reader.feed(text) + reader.end()
    return "".join(item for item in said if isinstance(item, str)), [item for item in said if isinstance(item, Call)]


def _overlap(text: str, mark: str) -> int:
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
