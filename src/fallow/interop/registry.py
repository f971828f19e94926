"""The formats that can be read, one line each, and which of them a file is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fallow.interop.akash import carry as akash
from fallow.interop.model import FileRefused, Import, Problem
from fallow.interop.tree import Mapping as Tree
from fallow.interop.tree import compose, key_of


@dataclass(frozen=True)
class Settings:
    """What a person may say about how to read. `values` fill in templates."""

    strictly: bool = True
    values: Mapping[str, str] | None = None


@dataclass(frozen=True)
class FileFormat:
    """A format: `is_it` judges by the fields at the file's top, in small letters; `read` may raise FileRefused."""

    name: str
    title: str
    is_it: Callable[[frozenset[str]], bool]
    read: Callable[[bytes, Settings], Import]


FORMATS: tuple[FileFormat, ...] = (
    FileFormat(
        "akash",
        "Akash SDL",
        lambda top: {"services", "profiles"} <= top or {"services", "deployment"} <= top,
        lambda data, settings: akash.read(data, strictly=settings.strictly),
    ),
)
"""In the order in which they are tried."""


def read(data: bytes, settings: Settings, name: str | None = None) -> Import:
    """A file of the format called `name`, or of the one that it looks like. Raises FileRefused; KeyError for no such
    name."""
    return (by_name(name) if name else detect(data)).read(data, settings)


def by_name(name: str) -> FileFormat:
    """Raises KeyError."""
    return next((it for it in FORMATS if it.name == name), None) or _missing(name)


def _missing(name: str) -> FileFormat:
    raise KeyError(name)


def detect(data: bytes) -> FileFormat:
    """Which format a file is. Raises FileRefused if it is none, or cannot be read at all."""
    root = compose(data)
    top = frozenset(key_of(key).lower() for key, _ in root.pairs) if type(root) is Tree else frozenset[str]()
    for candidate in FORMATS:
        if candidate.is_it(top):
            return candidate
    met = f"a file with {', '.join(sorted(top)[:8])} at its top" if top else "a file without fields"
    known = ", ".join(it.title for it in FORMATS)
    raise FileRefused(Problem(line=0, field="", met=met, accepted=f"one of {known}"), why="format")
