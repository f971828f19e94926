"""Mappings whose keys mean the same in any case, each field with its path, for formats that are read so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fallow.interop.model import shown
from fallow.interop.shape import Trouble
from fallow.interop.tree import Path, js_word


class Folded:
    """A mapping at `path`. Asking for a field of the wrong type is a trouble, and gives what a missing one gives. With
    `exactly` the case of keys counts."""

    def __init__(self, value: Any, path: Path, troubles: list[Trouble], *, exactly: bool = False) -> None:
        self.path, self.troubles, self.exactly = path, troubles, exactly
        self.asked: set[str] = set()
        self.fields: dict[str, tuple[str, Any]] = {}
        if isinstance(value, dict):
            for key, one in cast("dict[str, Any]", value).items():
                self.fields[key if exactly else key.lower()] = (key, one)
        elif value is not None:
            self.trouble(shown(value), "a mapping")

    def trouble(self, met: str, accepted: str, *more: str | int) -> None:
        """Something is wrong here, or further in."""
        self.troubles.append(Trouble(met, accepted, *self.path, *more))

    def at(self, name: str) -> Path:
        """Where a field is, by the key that the file has."""
        return (*self.path, self.fields.get(self._fold(name), (name, None))[0])

    def _fold(self, name: str) -> str:
        return name if self.exactly else name.lower()

    def raw(self, name: str) -> Any:
        """A field as it is; None for nothing."""
        self.asked.add(self._fold(name))
        return self.fields.get(self._fold(name), (name, None))[1]

    def word(self, name: str, otherwise: str = "") -> str:
        """A text; a number is written as one."""
        value = self.raw(name)
        if value is None:
            return otherwise
        if isinstance(value, (dict, list)):
            self.troubles.append(Trouble(shown(value), "a text", *self.at(name)))
            return otherwise
        return value if isinstance(value, str) else js_word(value)

    def number(self, name: str, least: int = 0) -> int | None:
        """A whole number of at least `least`."""
        value = self.raw(name)
        if value is not None and (type(value) is not int or value < least):
            self.troubles.append(Trouble(shown(value), f"a whole number from {least}", *self.at(name)))
            return None
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(
            one if isinstance(one, str) else js_word(one)
            for place, one in enumerate(self.items(name))
            if self._is_word(one, name, place)
        )

    def _is_word(self, one: Any, name: str, place: int) -> bool:
        if isinstance(one, (dict, list)):
            self.troubles.append(Trouble(shown(one), "a text", *self.at(name), place))
            return False
        return True

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            self.troubles.append(Trouble(shown(value), "a list", *self.at(name)))
            return []
        return cast("list[Any]", value) or []

    def pairs(self, name: str) -> dict[str, str]:
        """A mapping of texts, whose keys are as the file has them."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.troubles.append(Trouble(shown(value), "a mapping", *self.at(name)))
            return {}
        return {key: js_word(one) if one is not None else "" for key, one in cast("dict[str, Any]", value).items()}

    def part(self, name: str) -> Folded:
        """A mapping within."""
        return Folded(self.raw(name), self.at(name), self.troubles, exactly=self.exactly)

    def parts(self, name: str) -> list[Folded]:
        """A list of mappings within."""
        at = self.at(name)
        return [
            Folded(one, (*at, place), self.troubles, exactly=self.exactly) for place, one in enumerate(self.items(name))
        ]

    def unasked(self) -> list[str]:
        """Fields that nobody has looked at, by their keys."""
        return [key for name, (key, _) in self.fields.items() if name not in self.asked]


def each_once(values: list[tuple[str, Path]], what: str, add: Callable[[Trouble], None]) -> None:
    """Add a trouble for every value that stands a second time."""
    seen: set[str] = set()
    for value, path in values:
        if value and value in seen:
            add(Trouble(f"{what} {value!r} twice", "each once", *path))
        seen.add(value)
