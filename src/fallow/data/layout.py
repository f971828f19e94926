"""Which files of a folder are the data: a folder of files, a data set as the Hugging Face hub lays it out, or as
`datasets` saves it to disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fallow.data.json_input import parse_json
from fallow.data.rows import RowError, refusal
from fallow.errors import fail

MAX_FILES = 10_000
MAX_LISTING_BYTES = 16 << 20
_BESIDE = re.compile(r"(readme|licen[cs]e|notice|citation|dataset_infos?|state|dataset_dict)(\..*)?", re.IGNORECASE)
_TABLES = (".parquet", ".arrow", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".xz", ".bz2")
_TRAIN = re.compile(r"(^|[^a-z])train([^a-z]|$)", re.IGNORECASE)
_HELD = re.compile(r"(^|[^a-z])(test|dev|eval|evaluation|val|valid|validation)([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class DataFiles:
    """The `files` to train on, in order, and those of other splits that were `left_out`."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def files_of(path: Path) -> DataFiles:
    """The data files at `path`. Errors: UsageError E2003 when there is nothing, E1702 for a folder without data."""
    if not path.exists():
        raise fail("E2003", f"There is no {path}.")
    if path.is_file():
        return DataFiles((path,))
    if (path / "dataset_dict.json").is_file():
        splits = _names(path, "dataset_dict.json", "splits")
        chosen = next((split for split in splits if _TRAIN.search(split)), splits[0] if splits else "")
        saved = _saved(path / chosen)
        return DataFiles(saved.files, tuple(path / split for split in splits if split != chosen))
    return _saved(path) if (path / "state.json").is_file() else _loose(path)


def _saved(folder: Path) -> DataFiles:
    """A data set that `datasets` saved."""
    files = tuple(folder / name for name in _names(folder, "state.json", "_data_files", "filename"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise _no_data(folder, f"lacks {missing[0]}" if missing else "names no files in state.json")
    return DataFiles(files)


def _names(folder: Path, file: str, field: str, inner: str = "") -> list[str]:
    """The names in a list of a settings file, of which none leads out of the folder."""
    try:
        raw = (folder / file).read_bytes()[:MAX_LISTING_BYTES]
        table = cast(dict[str, Any], parse_json(raw))
        found = [cast(str, one[inner] if inner else one) for one in table[field]]
        assert all(isinstance(name, str) and name == Path(name).name for name in found)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise _no_data(folder, f"has a {file} that cannot be read") from error
    return found


def _loose(folder: Path) -> DataFiles:
    """Whatever files there are but hidden ones and, beside files of rows, what tells about them."""
    inside = (file for file in folder.rglob("*") if file.is_file())
    found = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    rows = [file for file in found if file.suffix.lower() in _TABLES and not _BESIDE.fullmatch(file.name)]
    files = sorted(rows or found)
    if not files:
        raise _no_data(folder, "holds no files")
    if len(files) > MAX_FILES:
        raise _no_data(folder, f"holds {len(files):,} files, more than {MAX_FILES:,}")
    places = {file: file.relative_to(folder).as_posix() for file in files}
    if any(map(_TRAIN.search, places.values())):
        files = [file for file in files if not _BESIDE.fullmatch(file.name)]
        held = tuple(file for file in files if _HELD.search(places[file]) and not _TRAIN.search(places[file]))
        return DataFiles(tuple(file for file in files if file not in held), held)
    return DataFiles(tuple(files))


def _no_data(folder: Path, what: str) -> Exception:
    return refusal(folder.name, RowError(what))
