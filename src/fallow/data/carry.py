"""Data made ready to travel: what only some machines can read is written as JSON lines."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from fallow.data.read import inspect_data, rows_of, written
from fallow.data.rows import Prose


def portable(path: Path, folder: Path) -> Path:
    """The data at `path` as any machine can read it: itself, or for what is compressed or takes an extra package a
    file in `folder`, called after its content, with the same rows. Errors: as `rows_of`, and OSError."""
    if inspect_data(path).travels:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    draft, hasher = folder / f"{path.name}.part", blake3()
    try:
        with draft.open("wb") as file:
            kept: list[str] = []
            for row in rows_of(path):
                kept += [row.text] if isinstance(row, Prose) else []
                if isinstance(row, Prose) and row.continues:
                    continue
                line = f"{written(Prose(''.join(kept)) if kept else row)}\n".encode()
                kept.clear()
                hasher.update(line)
                file.write(line)
        return draft.replace(folder / f"{hasher.hexdigest()[:32]}.jsonl")
    finally:
        draft.unlink(missing_ok=True)
