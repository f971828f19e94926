"""What training data consists of once it is read, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fallow.errors import FallowError, fail

PAGE = "docs/reference/data.md"
MessageFields = dict[str, Any]
"""`role` and `content` (a string), and where they were given: `tool_calls` with their arguments as objects, `name`,
`tool_call_id`, `reasoning_content`, `thinking`, and `weight`, which is 0 where the message is not to be learned."""


@dataclass(frozen=True)
class Prose:
    """A document, or with `continues` a part of one that goes on in the next row."""

    text: str
    continues: bool = False
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Completion:
    """A text and how it goes on: no chat, and only what follows is to be learned."""

    prompt: str
    completion: str
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Chat:
    """A conversation. Assistants' messages before number `learn_from` are not to be learned."""

    messages: tuple[MessageFields, ...]
    tools: tuple[dict[str, Any], ...] = ()
    learn_from: int = 0
    place: str = field(default="", compare=False)


Example = Prose | Completion | Chat


class RowError(Exception):
    """What is wrong with a row, for people. `accepted` is the nearest row that would be taken."""

    def __init__(self, what: str, accepted: str = "") -> None:
        super().__init__(what)
        self.what, self.accepted = what, accepted


class UnbuiltError(RowError):
    """The row is in order, but no method here learns from such rows."""


def refusal(place: str, error: RowError) -> FallowError:
    """The coded error for a row at `place` ("a.jsonl, line 3"): E1702, or E1711 for what no method learns from."""
    code = "E1711" if isinstance(error, UnbuiltError) else "E1702"
    cause = f"A row that is taken looks like this: {error.accepted}" if error.accepted else ""
    what = error.what if error.what.startswith(",") else f" {error.what}"
    return fail(code, f"{place}{what}.", cause=cause, next_step=f"{PAGE} shows every shape.")
