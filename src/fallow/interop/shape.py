"""What a file may look like, said with small parts: `mapping({"port": whole(1, 65535)}, required=("port",))`.

A check is a function of a value and a list of troubles. It adds what is wrong and never stops, so that one look at a
file names everything. Nothing is allocated for a value that is as it should be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from fallow.interop.model import Problem, shown
from fallow.interop.tree import Node, Path, field_of, line_of

MOST_TROUBLES = 50
"""Of one file; more would help nobody."""


class Trouble:
    """Something wrong. `steps` lead to it from the inside out; each collection around it adds its own. What is
    `harmless` keeps no file from being read."""

    __slots__ = ("accepted", "harmless", "met", "steps")

    def __init__(self, met: str, accepted: str, *steps: str | int, harmless: bool = False) -> None:
        self.met, self.accepted, self.steps, self.harmless = met, accepted, list(reversed(steps)), harmless

    @property
    def path(self) -> Path:
        """From the file's root to what is wrong."""
        return tuple(reversed(self.steps))


Rule = Callable[[Any, list[Trouble]], None]


def problems_of(troubles: list[Trouble], root: Node | None) -> list[Problem]:
    """Troubles with the lines of their fields, in the file's order."""
    found = [
        Problem(line=line_of(root, one.path), field=field_of(one.path), met=one.met, accepted=one.accepted)
        for one in troubles[:MOST_TROUBLES]
    ]
    return sorted(found, key=lambda problem: problem.line)


def text(accepted: str = "a text", *, least: int = 0, pattern: str = "") -> Rule:
    """A text of at least `least` letters that as a whole matches `pattern`."""
    matches = re.compile(pattern).fullmatch if pattern else None

    def check(value: Any, troubles: list[Trouble]) -> None:
        if not isinstance(value, str) or len(value) < least or (matches is not None and not matches(value)):
            troubles.append(Trouble(shown(value), accepted))

    return check


def choice(*values: str) -> Rule:
    """One of some texts."""
    allowed, accepted = frozenset(values), " or ".join(values)

    def check(value: Any, troubles: list[Trouble]) -> None:
        if not isinstance(value, str) or value not in allowed:
            troubles.append(Trouble(shown(value), accepted))

    return check


def whole(least: int, most: int = 2**53) -> Rule:
    """A whole number between two, both included; `80.0` has been read as 80."""
    accepted = f"a whole number from {least} to {most}" if most < 2**53 else f"a whole number from {least}"

    def check(value: Any, troubles: list[Trouble]) -> None:
        if type(value) is not int or not least <= value <= most:
            troubles.append(Trouble(shown(value), accepted))

    return check


def is_number(value: Any) -> bool:
    """Whether it is a number, and finite."""
    return not isinstance(value, bool) and isinstance(value, (int, float)) and abs(value) != float("inf")


def yes_no(value: Any, troubles: list[Trouble]) -> None:
    """True or false; `yes` and `on` are texts."""
    if not isinstance(value, bool):
        troubles.append(Trouble(shown(value), "true or false"))


def anything(value: Any, troubles: list[Trouble]) -> None:
    """Whatever it is."""


def passes(test: Callable[[Any], bool], accepted: str) -> Rule:
    """Whatever a test lets through."""

    def check(value: Any, troubles: list[Trouble]) -> None:
        if not test(value):
            troubles.append(Trouble(shown(value), accepted))

    return check


def listed(item: Rule, *, nothing: bool = False) -> Rule:
    """A list of what passes `item`; with `nothing` it may be left empty altogether."""

    def check(value: Any, troubles: list[Trouble]) -> None:
        if not isinstance(value, list):
            if value is not None or not nothing:
                troubles.append(Trouble(shown(value), "a list"))
            return
        for index, one in enumerate(cast("list[Any]", value)):
            before = len(troubles)
            item(one, troubles)
            for trouble in troubles[before:]:
                trouble.steps.append(index)

    return check


def mapping(
    fields: Mapping[str, Rule],
    *,
    required: tuple[str, ...] = (),
    more: Rule | None = None,
    also: Rule = anything,
) -> Rule:
    """A mapping with known fields. Others are refused by name, or must pass `more`; `also` looks at the whole."""
    known = ", ".join(fields)

    def check(value: Any, troubles: list[Trouble]) -> None:
        if not isinstance(value, dict):
            troubles.append(Trouble(shown(value), "a mapping"))
            return
        for key, one in cast("dict[str, Any]", value).items():
            before = len(troubles)
            rule = fields.get(key, more)
            if rule is None:
                troubles.append(Trouble("a field that is not known here", known))
            else:
                rule(one, troubles)
            for trouble in troubles[before:]:
                trouble.steps.append(key)
        for name in required:
            if name not in value:
                troubles.append(Trouble(f"{name} is missing", f"a mapping with {name}"))
        also(value, troubles)

    return check
