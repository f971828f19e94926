"""What every shape of a row answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, cast

from fallow.data.json_input import parse_json
from fallow.data.rows import Example, RowError

Fields = dict[str, Any]


class RowShape(ABC):
    """A kind of row: what it is called, the fields that it is known by (any of the sets will do), and an example as it
    stands in a file."""

    name: str
    keys: tuple[frozenset[str], ...]
    example: str

    def fits(self, names: Collection[str]) -> bool:
        """Whether a row with fields of these names is meant to be one."""
        return any(keys <= set(names) for keys in self.keys)

    @abstractmethod
    def read(self, fields: Fields) -> Example:
        """The row, without its place. Errors: RowError, without an example, naming the field."""


def text_of(fields: Fields, name: str) -> str:
    """A field that must be a string. Raises RowError."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise RowError(f", field {name}: is {kind_of(value)}, not a string")
    return value


def list_of(fields: Fields, name: str) -> list[Any]:
    """A field that must be a list, or in a table a list as JSON. Raises RowError."""
    value = fields.get(name)
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise RowError(f", field {name}: is a string, and no list as JSON ({str(error)[:100]})") from error
    if not isinstance(value, list):
        raise RowError(f", field {name}: is {kind_of(value)}, not a list")
    return cast(list[Any], value)


def kind_of(value: object) -> str:
    """What a value is called in JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {"str": "a string", "list": "a list", "dict": "an object", "int": "a number", "float": "a number"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
