"""Filling in the part of Go's templates that job files use: `{{.name}}`, with `{{-` and `-}}` to take away space."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fallow.interop.model import FileRefused, Problem
from fallow.interop.tree import MAX_BYTES

ACTION = re.compile(rb"(\s*\{\{-\s|\{\{)(.*?)(\s-\}\}\s*|\}\})", re.DOTALL)
NAME = re.compile(rb"\s*\.([A-Za-z_][A-Za-z0-9_]*)\s*")
COMMENT = re.compile(rb"\s*/\*.*\*/\s*", re.DOTALL)


def fill_in(data: bytes, values: Mapping[str, str]) -> bytes:
    """The file with its names replaced. Raises FileRefused for a name without a value, and for any other action."""
    if b"{{" not in data:
        return data
    problems: list[Problem] = []
    written = 0

    def one(match: re.Match[bytes]) -> bytes:
        nonlocal written
        line, inner = data.count(b"\n", 0, match.start(2)) + 1, match[2]
        if COMMENT.fullmatch(inner):
            return b""
        found = NAME.fullmatch(inner)
        name = found[1].decode() if found else ""
        if found is None or name not in values:
            met = f"no value for {name}" if found else f"{{{{{inner[:40].decode('utf-8', 'replace')}}}}}"
            accepted = f"--value {name}=VALUE" if found else "names alone, as {{.name}}"
            problems.append(Problem(line=line, field="", met=met, accepted=accepted))
            return b""
        text = values[name].encode("utf-8", "surrogatepass")
        written += len(text)
        if written > MAX_BYTES:
            problem = Problem(line=line, field="", met="values are too long", accepted=f"{MAX_BYTES} bytes in all")
            raise FileRefused(problem, why="bound")
        return text

    filled = ACTION.sub(one, data)
    if problems:
        raise FileRefused(*problems[:50])
    return filled
