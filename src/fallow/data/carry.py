"""Data made ready to travel: what only some machines can read is written as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from fallow.data.read import inspect_data, rows_of, written
from fallow.data.rows import Prose


def portable(path: Path, folder: Path) -> Path:
    """The data at `path` as any machine can read it: itself, or for what is compressed or takes an extra package a
    file in `folder`, called after its content, with the same rows. Errors: as `rows_of`, and OSError."""
    facts = inspect_data(path)
    if facts.travels:
        return path
    one_text = facts.formats == {"text": 1}
    folder.mkdir(parents=True, exist_ok=True)
    draft, hasher = folder / f"{path.name}.part", blake3()
    try:
        with draft.open("wb") as file:
            for part in _plain(path) if one_text else _lines(path):
                hasher.update(part)
                file.write(part)
        inspect_data(draft)  # a row that was short enough may be too long as a line
        return draft.replace(folder / f"{hasher.hexdigest()[:32]}{'.txt' if one_text else '.jsonl'}")
    finally:
        draft.unlink(missing_ok=True)


def _plain(path: Path) -> Iterator[bytes]:
    yield from (row.text.encode() for row in rows_of(path) if isinstance(row, Prose))


def _lines(path: Path) -> Iterator[bytes]:
    held = ""
    for row in rows_of(path):
        if isinstance(row, Prose):
            held += row.text
            if row.continues:
                continue
            row, held = Prose(held), ""
        yield f"{written(row)}\n".encode()
