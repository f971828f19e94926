"""The one way from a path to rows, for whoever wants to know what a file holds and for whoever trains on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fallow.data.formats.registry import format_of
from fallow.data.layout import files_of
from fallow.data.rows import Chat, Completion, Example, Prose, RowError, refusal
from fallow.data.shapes.registry import read_row
from fallow.data.source import source_of
from fallow.errors import fail


@dataclass
class DataFacts:
    """What was read: files and their formats, rows by shape, and how many rows said nothing. `travels`: any machine can
    read the files as they are. `left_out` are files of other splits than the one for training."""

    files: int = 0
    left_out: int = 0
    size_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter[str])
    shapes: Counter[str] = field(default_factory=Counter[str])
    empty: int = 0
    travels: bool = True

    @property
    def rows(self) -> int:
        """How many rows say something; a text that is nothing else is one."""
        return sum(self.shapes.values())


def rows_of(path: Path, reading: DataFacts | None = None) -> Iterator[Example]:
    """The rows of the data at `path`, in order, in bounded memory; `reading` is filled on the way. Errors: UsageError
    E2003 when there is nothing; E1702 with file, line, message and field for what is no training data, E1711 for rows
    that no method learns from, E1708 when reading takes a package that is not installed, E1703 when there is no row at
    the end. Never anything else, whatever the bytes."""
    told = reading or DataFacts()
    layout = files_of(path)
    told.files, told.left_out = len(layout.files), len(layout.left_out)
    for file in layout.files:
        try:
            yield from _rows_in(file, told)
        except (PermissionError, FileNotFoundError) as error:
            raise fail("E2003", f"{file.name} cannot be read: {error.strerror}.") from error
    if not told.rows:
        raise fail("E1703", f"{path.name} is empty.")


def inspect_data(path: Path) -> DataFacts:
    """Read and check all of the data at `path`, so that what is wrong is found before anything is spent. Errors: as
    `rows_of`."""
    reading = DataFacts()
    for _ in rows_of(path, reading):
        pass
    return reading


def _rows_in(file: Path, told: DataFacts) -> Iterator[Example]:
    source = source_of(file)
    form = format_of(source)
    told.size_bytes += file.stat().st_size
    told.formats[form.name] += 1
    told.travels = told.travels and form.everywhere and not source.packed
    for record in form.records(source):
        if isinstance(record.fields, str):
            told.shapes["text"] += not record.continues
            yield Prose(record.fields, record.continues, record.place)
            continue
        try:
            row, shape = read_row(record.fields, record.place)
        except RowError as error:
            raise refusal(record.place, error) from error
        if row in (Prose(""), Completion("", "")):
            told.empty += 1
        else:
            told.shapes[shape] += 1
            yield row


def written(row: Example) -> str:
    """A row as a JSON line that reads as the same row."""
    fields: dict[str, Any]
    match row:
        case Prose():
            fields = {"text": row.text}
        case Completion():
            fields = {"prompt": row.prompt, "completion": row.completion}
        case Chat() if row.learn_from:
            fields = {"prompt": row.messages[: row.learn_from], "completion": row.messages[row.learn_from :]}
        case Chat():
            fields = {"messages": row.messages}
    if isinstance(row, Chat) and row.tools:
        fields["tools"] = row.tools
    return json.dumps(fields, ensure_ascii=False)
