"""Bounds on a stranger's JSON schema, before anything is made of it: what has been seen to take the library for
grammars (`guide.py`) seconds or more, and what it takes for granted though it is not so.

A keyword that the library does not know it refuses itself, by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from fallow.errors import FallowError, fail

MAX_REFERENCES = 2_000
MAX_PROPERTIES = 1_000
MAX_NAME_PATTERNS = 64
MAX_JOINED_PATTERNS = 8
MAX_MULTIPLE = 10_000
"""A number's multiples are followed by an automaton with as many states."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"enum", "const", "default", "examples"})
Schema = dict[str, Any]


def check_schema(schema: Schema) -> None:
    """Errors: E1904 naming the keyword that is out of bounds."""
    references = 0
    for one in _schemas(schema):
        references += "$ref" in one
        _check_sizes(one)
        _check_members(one)
        if "multipleOf" in one and not _few_multiples(one["multipleOf"]):
            raise _refused(f"a multipleOf of more than {MAX_MULTIPLE:,} (whatever its power of ten)")
    if references > MAX_REFERENCES:
        raise _refused(f"more than {MAX_REFERENCES:,} times $ref")


def _check_sizes(schema: Schema) -> None:
    bounds = {"properties": MAX_PROPERTIES, "patternProperties": MAX_NAME_PATTERNS}
    for word, most in bounds.items():
        if isinstance(named := schema.get(word), dict) and len(named) > most:
            raise _refused(f"{word} with more than {most:,} members")
    parts = schema.get("allOf")
    joined = [part for part in parts if isinstance(part, dict) and "pattern" in part] if isinstance(parts, list) else ()
    if len(joined) > MAX_JOINED_PATTERNS:
        raise _refused(f"allOf with more than {MAX_JOINED_PATTERNS} times pattern")


def _check_members(schema: Schema) -> None:
    """A grammar cannot see that a name is written twice, and does not count names: only those that are required are
    sure to differ."""
    least, required = schema.get("minProperties"), schema.get("required")
    sure = len(required) if isinstance(required, list) else 0
    if isinstance(least, int | float) and least > max(1, sure):
        raise _refused("minProperties of more than 1, and than there are required properties")


def _few_multiples(value: Any) -> bool:
    try:
        digits = Decimal(repr(value)).normalize().as_tuple().digits
    except (InvalidOperation, ValueError):
        return True  # no number: the library says so
    return len(digits) <= 20 and int("".join(map(str, digits))) <= MAX_MULTIPLE


def _refused(what: str) -> FallowError:
    return fail("E1904", f"The guide's schema has {what}, which is not supported.")


def _schemas(schema: Any) -> Iterator[Schema]:
    """The schema and all that are in it. What only looks like one is among them; what is surely data is not."""
    waiting: list[Any] = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            yield one
            for word, value in one.items():
                if word not in _DATA:
                    waiting += value.values() if word in _MAPS and isinstance(value, dict) else [value]
