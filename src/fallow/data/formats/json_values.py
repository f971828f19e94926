"""JSON as people write rows in it: JSON lines, an array, objects behind each other, on one line or indented.

Whatever begins as JSON does is read as JSON or refused, and never trained on as text. Only one row is held at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fallow.data.formats.format import Format, Record
from fallow.data.json_input import MAX_DEPTH, parse_json
from fallow.data.rows import RowError, refusal
from fallow.data.source import MAX_ROW_CHARS, Source

SUFFIXES = (".json", ".jsonl", ".ndjson")
_BEGINS = re.compile(r"""\s*(\{\s*(["'}]|$)|\[\s*([{"'\]]|\[\s*[{"'\[]|$))""")
_OUTSIDE, _INSIDE = re.compile(r"[\[\]{}\"]"), re.compile(r"[\"\\]")
_ODD = re.compile(r"\\u[dD][89a-fA-F]")


class JsonValues(Format):
    """Rows are objects."""

    name = "JSON"

    def knows(self, source: Source) -> bool:
        head = source.head()
        return source.suffix in SUFFIXES or (_BEGINS.match(head) is not None and head.strip() not in ("{", "["))

    def records(self, source: Source) -> Iterator[Record]:
        found = _lines(source) if _is_lines(source) else _objects(source)
        for number, raw in found:
            yield Record(source.place(number), _object(source, number, raw))


def _is_lines(source: Source) -> bool:
    """Whether the first line that says something is a row by itself."""
    first = next((line for _, line in source.lines() if line.strip()), "")
    try:
        return isinstance(parse_json(first), dict)
    except ValueError:
        return False


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    yield from ((number, line) for number, line in source.lines() if line.strip())


def _object(source: Source, number: int, raw: str) -> dict[str, Any]:
    try:
        found = parse_json(raw)
        if _ODD.search(raw):
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        hint = "; strings stand in double quotes" if "'" in raw[:20] else ""
        what = f"is no JSON ({error.msg}, column {error.colno}{hint})"
        raise refusal(source.place(number + error.lineno - 1), RowError(what)) from error
    except UnicodeEncodeError as error:
        raise refusal(source.place(number), RowError("holds half of a character (a lone surrogate)")) from error
    except ValueError as error:
        raise refusal(source.place(number), RowError(f"is no JSON ({str(error)[:100]})")) from error
    if not isinstance(found, dict):
        raise refusal(source.place(number), RowError("is no JSON object"))
    return found  # pyright: ignore[reportUnknownVariableType]


def _objects(source: Source) -> Iterator[tuple[int, str]]:
    """The texts of the objects in a file, each with the number of the line that it begins on."""
    scan = _Scan(source)
    for number, piece in source.pieces():
        yield from scan.feed(number, piece)
    scan.finish()


class _Scan:
    """Finds where objects begin and end without reading them, so that a row without end is refused before it fills the
    memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._array: bool | None = None
        self._closed = self._quoted = self._escaped = False
        self._depth, self._number, self._found = 0, 1, 0
        self._kept: list[str] = []
        self._size = 0
        self._gap = ""

    def feed(self, number: int, piece: str) -> Iterator[tuple[int, str]]:
        at = start = 0
        while (at := self._next(piece, at)) < len(piece):
            mark, at = piece[at], at + 1
            if self._depth > self._base:
                if self._turn(mark, number) == self._base:
                    self._keep(piece[start:at], number)
                    yield self._number, "".join(self._kept)
                    self._kept, self._size, start, self._found = [], 0, at, self._found + 1
                continue
            self._between(piece[start : at - 1], number)
            self._begin(mark, number)
            start = at - 1 if mark == "{" else at
        if self._depth > self._base:
            self._keep(piece[start:], number)
        else:
            self._between(piece[start:], number)

    def finish(self) -> None:
        """The file ended."""
        if self._depth > self._base:
            raise self._refusal(self._number, "begins an object that has no end; the file may be cut off")
        if self._gap:
            raise self._refusal(self._number, "is followed by something that is no row")
        if self._array and not self._closed:
            raise self._refusal(self._number, "has the last whole row, and the array does not end; it may be cut off")

    @property
    def _base(self) -> int:
        """How deep rows lie."""
        return int(bool(self._array) and not self._closed)

    def _next(self, piece: str, at: int) -> int:
        """The place of the next bracket, or of a quotation mark that begins a string between rows."""
        if self._escaped:
            self._escaped, at = False, at + 1
        while at < len(piece):
            found = (_INSIDE if self._quoted else _OUTSIDE).search(piece, at)
            if found is None:
                break
            at = found.end()
            if found.group() == "\\":
                self._escaped = at == len(piece)
                at += 1
            elif found.group() != '"' or (not self._quoted and self._depth == self._base):
                return found.start()
            else:
                self._quoted = not self._quoted
        return len(piece)

    def _turn(self, mark: str, number: int) -> int:
        self._depth += 1 if mark in "[{" else -1
        if self._depth > MAX_DEPTH:
            raise self._refusal(number, f"is no JSON (it is nested deeper than {MAX_DEPTH})")
        return self._depth

    def _begin(self, mark: str, number: int) -> None:
        """What stands between rows: the beginning of one, or of the array, or its end."""
        gap, self._gap = self._gap, ""
        if self._array is None:
            self._array = mark == "["
            if self._array and not gap:
                self._depth = 1
                return
        wanted = "," if self._array and self._found else ""
        if mark == "]" and self._array and not self._closed and gap == "":
            self._closed, self._depth = True, 0
        elif mark == "{" and gap == wanted and not self._closed:
            self._depth, self._number = self._depth + 1, number
        else:
            raise self._refusal(number, "is no JSON object, or there is something between rows that is none")

    def _between(self, text: str, number: int) -> None:
        self._gap += text.strip()
        if self._gap not in ("", ","):
            raise self._refusal(number, "is no JSON object, or there is something between rows that is none")

    def _keep(self, text: str, number: int) -> None:
        self._kept.append(text)
        self._size += len(text)
        if self._size > MAX_ROW_CHARS:
            raise self._refusal(number, f"goes on with a row of more than {MAX_ROW_CHARS:,} characters")

    def _refusal(self, number: int, what: str) -> Exception:
        return refusal(self._source.place(number), RowError(what))
