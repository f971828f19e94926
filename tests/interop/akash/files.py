"""Small SDL files, written for these tests."""

from __future__ import annotations

import json
from typing import Any

from fallow.interop.akash import lenient, strict
from fallow.interop.akash.canonical import canonical_json, digest_of
from fallow.interop.model import FileRefused, Problem
from fallow.interop.tree import FieldMap, compose


def sdl(**changes: Any) -> dict[str, Any]:
    """A file of one web service; `changes` replace what is at the top."""
    return {
        "version": "2.0",
        "services": {
            "web": {"image": "nginx:1.27", "expose": [{"port": 80, "as": 80, "to": [{"global": True}]}]},
        },
        "profiles": {
            "compute": {
                "web": {"resources": {"cpu": {"units": 0.5}, "memory": {"size": "512Mi"}, "storage": {"size": "1Gi"}}}
            },
            "placement": {"dc": {"pricing": {"web": {"denom": "uakt", "amount": 100}}}},
        },
        "deployment": {"web": {"dc": {"profile": "web", "count": 1}}},
        **changes,
    }


def changed(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The file with the value at a path like `services.web.image` replaced, or with ... taken away."""
    file = sdl() if base is None else base
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inner: Any = file
    for step in way:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return file


def text(file: Any) -> bytes:
    """As JSON, which is YAML, a value a line."""
    return json.dumps(file, indent=1).encode()


def strictly(file: Any) -> list[FieldMap]:
    return strict.manifest(compose(file if isinstance(file, bytes) else text(file)))[1]


def leniently(file: Any) -> list[FieldMap]:
    return lenient.manifest(compose(file if isinstance(file, bytes) else text(file)))[1]


def digest(groups: list[FieldMap]) -> str:
    return digest_of(canonical_json(groups))


def problems(reader: Any, file: Any) -> tuple[Problem, ...]:
    """What a reader says against a file; empty if it takes it."""
    try:
        reader(file)
    except FileRefused as refused:
        return refused.problems
    return ()
