"""All shapes, in the order in which they are tried: what is meant for something else comes first, since it often looks
like an ordinary row as well."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from difflib import SequenceMatcher
from typing import cast

from fallow.data.rows import Example, RowError
from fallow.data.shapes.conversations import Conversations, Messages, PromptMessages
from fallow.data.shapes.documents import PromptCompletion, TextExample, TokenNumbers
from fallow.data.shapes.preferences import Preference, Rating
from fallow.data.shapes.questions import Alpaca, Question
from fallow.data.shapes.shape import Fields, RowShape

SHAPES: tuple[RowShape, ...] = (
    Preference(), Rating(), TokenNumbers(), Messages(), Conversations(), PromptMessages(), PromptCompletion(), Alpaca(),
    Question(), TextExample(),
)  # fmt: skip


def known_by(names: Collection[str]) -> bool:
    """Whether a row with fields of these names is of a shape that is known."""
    return any(shape.fits(names) for shape in SHAPES)


def shape_of(fields: Fields) -> RowShape | None:
    """What a row is meant to be."""
    fitting = (shape for shape in SHAPES if shape.fits(fields))
    return next((shape for shape in fitting if not isinstance(shape, PromptMessages) or shape.meant(fields)), None)


def read_row(fields: object, place: str) -> tuple[Example, str]:
    """A row and its shape's name. Errors: RowError with the nearest row that would be taken."""
    if not isinstance(fields, dict):
        raise RowError("is no object with fields", SHAPES[3].example)
    table = cast(Fields, fields)
    shape = shape_of(table)
    if shape is None:
        near = _nearest(table)
        raise RowError(_unknown(table, near), near.example)
    try:
        return replace(shape.read(table), place=place), shape.name
    except RowError as error:
        error.accepted = error.accepted or shape.example
        raise


def _nearest(fields: Fields) -> RowShape:
    def likeness(shape: RowShape) -> float:
        return max(sum(max((_like(key, name) for name in fields), default=0) for key in keys) for keys in shape.keys)

    return max((shape for shape in SHAPES if shape.example), key=likeness)


def _like(key: str, name: str) -> float:
    found = SequenceMatcher(None, key, name[:40].lower()).ratio()
    return found if found > 0.6 else 0.0


def _unknown(fields: Fields, near: RowShape) -> str:
    told = f"the fields {', '.join(name[:40] for name in list(fields)[:8])}" if fields else "no fields"
    rows = [name for name, value in fields.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(rows) == 1 and len(cast(list[object], fields[rows[0]])) > 1:
        return f"is one object, and its field {rows[0]} a list of rows: give that list alone (jq .{rows[0]})"
    wanted = " and ".join(sorted(max(near.keys, key=len)))
    return f"has {told}; no row is known by these. The nearest has {wanted}"
