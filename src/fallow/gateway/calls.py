"""Calls of tools in the text of an answer. Engines tell a call as text between two marks; clients want it apart from
what is said. A call is told when it is there whole: its arguments are JSON, of which half is of no use."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fallow.kinds.generate.tasks import CALL_CLOSE, CALL_OPEN


@dataclass(frozen=True)
class Call:
    """A tool's name, and its arguments as JSON text."""

    name: str
    arguments: str


Said = str | Call


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
            mark = CALL_CLOSE if self._inside else CALL_OPEN
            before, found, after = self._held.partition(mark)
            if not found:
                break
            if self._inside:
                said += self._call(before)
            elif before.strip():
                said.append(before)
            self._held, self._inside = after, not self._inside
        if not self._inside:
            keep = _overlap(self._held, CALL_OPEN)
            ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            if ready.strip() or (ready and not self.calls):
                said.append(ready)
        return said

    def end(self) -> list[Said]:
        """What is left: the beginning of a call that was cut off is what was said."""
        rest = (CALL_OPEN if self._inside else "") + self._held
        self._held, self._inside = "", False
        return [rest] if rest and (rest.strip() or not self.calls) else []

    def _call(self, body: str) -> list[Said]:
        try:
            call = json.loads(body)
            made = Call(str(call["name"]), json.dumps(call.get("arguments", {}), ensure_ascii=False))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return [f"{CALL_OPEN}{body}{CALL_CLOSE}"]
        self.calls += 1
        return [made]


def read_calls(text: str) -> tuple[str, list[Call]]:
    """-> what a whole answer says beside its calls, and the calls."""
    reader = CallReader()
    said = reader.feed(text) + reader.end()
    return "".join(item for item in said if isinstance(item, str)), [item for item in said if isinstance(item, Call)]


def _overlap(text: str, mark: str) -> int:
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
