"""CSV and its kin: the first row names the columns. What separates them is found out.

Whatever looks like a table is read as one or refused, and never trained on as text: by its name, by columns that rows
are known by, or because many lines have equally many cells.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from fallow.data.formats.format import Format, Record
from fallow.data.rows import RowError, refusal
from fallow.data.shapes.registry import known_by
from fallow.data.source import HEAD_BYTES, MAX_ROW_CHARS, Source

SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SEPARATORS = ",\t;|"
LOOKED_AT = 50
_NAME = re.compile(r"[A-Za-z_][\w \-./]{0,60}")


class Csv(Format):
    """Rows are lines of cells."""

    name = "CSV"

    def knows(self, source: Source) -> bool:
        return source.suffix in SUFFIXES or _separator(source) is not None

    def records(self, source: Source) -> Iterator[Record]:
        csv.field_size_limit(MAX_ROW_CHARS)
        separator = _separator(source) or SUFFIXES.get(source.suffix, ",")
        reader = csv.reader((line for _, line in source.lines()), delimiter=separator, strict=True)
        names: list[str] = []
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise refusal(source.place(number), RowError(f"is no row of a table ({error})")) from error
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _header(source, number, cells)
            elif len(cells) != len(names):
                what = (
                    f"has {len(cells)} cells, and there are {len(names)} columns; cells with {separator!r} are quoted"
                )
                raise refusal(source.place(number), RowError(what))
            else:
                yield Record(source.place(number), dict(zip(names, cells, strict=True)))


def _header(source: Source, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    lower = [name.lower() for name in names]
    names = lower if known_by(lower) else names
    if len(set(names)) < len(names):
        raise refusal(source.place(number), RowError("names two columns alike"))
    return names


def _separator(source: Source) -> str | None:
    """What separates cells; None where nothing makes this a table."""
    head = source.head()
    found = [(separator, rows) for separator in SEPARATORS if len(rows := _rows(head, separator)) > 1]
    for separator, rows in found:
        if len(rows[0]) > 1 and known_by([cell.strip().lower() for cell in rows[0]]):
            return separator
    for separator, rows in found:
        if _alike(rows, separator):
            return separator
    return None


def _rows(head: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(head, newline=""), delimiter=separator):
            if len(rows) > LOOKED_AT:
                break
            if row:
                rows.append(row)
    except csv.Error:
        return []
    whole = len(head.encode("utf-8", "replace")) < HEAD_BYTES // 2
    return rows if whole or len(rows) < 3 else rows[:-1]


def _alike(rows: list[list[str]], separator: str) -> bool:
    """Whether lines are too much alike to be prose."""
    width, names = len(rows[0]), rows[0]
    if width < 2 or any(len(row) != width for row in rows):
        return False
    if not any(row[-1].strip() for row in rows):  # lines that end alike, as verses and code do
        return False
    named = all(_NAME.fullmatch(name) for name in names) and len({name.lower() for name in names}) == width
    if named and len(rows) >= 3:
        return True
    return separator != "|" and ((len(rows) >= 10 and width >= 3) or len(rows) >= 30)
