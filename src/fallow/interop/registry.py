"""The formats that can be read, one entry each, and which of them a file is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fallow.interop import compose as composed
from fallow.interop.akash import carry as akash
from fallow.interop.bacalhau import job as bacalhau
from fallow.interop.flux import carry as flux
from fallow.interop.model import FileRefused, Import, Problem
from fallow.interop.tree import Mapping as Tree
from fallow.interop.tree import compose, key_of


@dataclass(frozen=True)
class Settings:
    """What a person may say about how to read. `values` fill in variables and, with `template`, templates."""

    strictly: bool = True
    template: bool = True
    values: Mapping[str, str] = field(default_factory=dict[str, str])


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
        lambda top: "services" in top and bool({"profiles", "deployment"} & top),
        lambda data, settings: akash.read(data, strictly=settings.strictly),
    ),
    FileFormat(
        "flux",
        "Flux specification",
        lambda top: "compose" in top or "repotag" in top,
        lambda data, settings: flux.read(data),
    ),
    FileFormat(
        "bacalhau",
        "Bacalhau job",
        lambda top: bool({"tasks", "job", "spec"} & top) or {"type", "count"} <= top,
        lambda data, settings: bacalhau.read(data, settings.values if settings.template else None),
    ),
    FileFormat(
        "compose",
        "Compose file",
        lambda top: "services" in top,
        lambda data, settings: composed.read(data, settings.values),
    ),
)
"""In the order in which they are tried."""
TEMPLATED_JOB = re.compile(rb"""^\s*["']?tasks["']?\s*:""", re.IGNORECASE | re.MULTILINE)
"""What tells a job whose template is no YAML before it is filled in."""


def read(data: bytes, settings: Settings, name: str | None = None) -> Import:
    """A file of the format called `name`, or of the one that it looks like. Raises FileRefused; KeyError for no such
    name."""
    return (by_name(name) if name else detect(data)).read(data, settings)


def by_name(name: str) -> FileFormat:
    """Raises KeyError."""
    return {one.name: one for one in FORMATS}[name]


def detect(data: bytes) -> FileFormat:
    """Which format a file is. Raises FileRefused if it is none, or cannot be read at all."""
    try:
        root = compose(data)
        top = frozenset(key_of(key).lower() for key, _ in root.pairs) if type(root) is Tree else frozenset[str]()
    except FileRefused:
        if b"{{" in data and TEMPLATED_JOB.search(data):
            return by_name("bacalhau")
        raise
    for candidate in FORMATS:
        if candidate.is_it(top):
            return candidate
    met = f"a file with {', '.join(sorted(top)[:8])} at its top" if top else "a file without fields"
    known = ", ".join(it.title for it in FORMATS)
    raise FileRefused(Problem(line=0, field="", met=met, accepted=f"one of {known}"), why="format")
