"""Rows written in many ways, and what they are read as."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from fallow.data.read import DataFacts, inspect_data, rows_of
from fallow.data.rows import Chat
from fallow.errors import FallowError

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
ROWS = [{"instruction": f"Say {n}.", "input": "", "output": f'{n}, or "{n}"\nagain é'} for n in range(5)]
CHATS = [
    Chat(({"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f'{n}, or "{n}"\nagain é'}))
    for n in range(5)
]


def table(separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def put(folder: Path, name: str, data: str | bytes) -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def read(path: Path) -> tuple[list, DataFacts]:
    reading = DataFacts()
    return list(rows_of(path, reading)), reading


def failure(path: Path) -> FallowError:
    with pytest.raises(FallowError) as caught:
        inspect_data(path)
    return caught.value


WRITTEN = {
    "JSON lines": lines(ROWS),
    "an array": json.dumps(ROWS),
    "an indented array": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "an array a row a line": "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
    "indented objects behind each other": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "objects on one line": "".join(json.dumps(row) for row in ROWS),
    "blank lines between": "\n\n" + "\n\n".join(json.dumps(row) for row in ROWS),
    "Windows line ends": lines(ROWS).replace("\n", "\r\n"),
    "CSV": table(),
    "CSV with semicolons": table(";"),
    "CSV with tabs": table("\t"),
    "CSV with bars": table("|"),
}
