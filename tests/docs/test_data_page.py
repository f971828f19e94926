"""`docs/reference/data.md` shows what becomes of every shape of row, and it is so: tokens and what is learned of them
are TRL's, as recorded in `tests/fixtures/trl_rows.json`."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.making import ROWS, WRITTEN
from tests.docs.data_cases import ACCEPTED, REFUSED, Case
from tests.docs.pages import ROOT
from tests.fixtures.record_trl import FILE
from tests.workloads.templates import PLAIN, tokenizer

from fallow.data.read import inspect_data, rows_of
from fallow.errors import FallowError
from fallow.workloads.rendering import Heard, Renderer, shown

PAGE = ROOT / "docs" / "reference" / "data.md"
RECORDED = json.loads(FILE.read_text())["rows"]


def taken(case: Case, folder: Path) -> tuple[list[int], list[int], Heard]:
    """The row's tokens, and the labels that follow from what is learned, as from a file."""
    (folder / "rows.jsonl").write_text(json.dumps(case.row) + "\n")
    renderer = Renderer(tokenizer(PLAIN, bos=True))
    (piece,) = renderer.pieces(rows_of(folder / "rows.jsonl"))
    labels = [int(token) if on else -100 for token, on in zip(piece.tokens, piece.learned, strict=True)]
    return piece.tokens.tolist(), labels, renderer.heard


def line_of(case: Case, what: str) -> str:
    """The row of the page's table."""
    return f"| {case.name} | `{json.dumps(case.row)}` | {what} |"


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_what_is_taken_is_what_trl_makes_of_it(case: Case, tmp_path: Path) -> None:
    tokens, labels, heard = taken(case, tmp_path)
    assert tokens == RECORDED[case.name]["input_ids"]
    assert labels == RECORDED[case.name]["labels"]
    assert heard.first is not None
    text = "".join(f"⟦{part}⟧" if on else part for part, on in shown(heard.first, 10_000)).replace("\n", "↵")
    assert line_of(case, f"`{text.replace('|', chr(0xA6))}`") in PAGE.read_text()


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_is_refused_says_why(case: Case, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(case.row) + "\n")
    with pytest.raises(FallowError) as caught:
        inspect_data(tmp_path / "rows.jsonl")
    assert caught.value.code == case.code
    assert case.words in caught.value.what
    assert line_of(case, f"[{case.code}](errors/{case.code}.md): {case.words}") in PAGE.read_text()


def columns(form: str) -> bytes:
    """A table of columns as Parquet or Arrow."""
    made = io.BytesIO()
    found = pa.Table.from_pylist(ROWS)
    if form == "parquet":
        pq.write_table(found, made)
    else:
        with pa.ipc.new_file(made, found.schema) as out:
            out.write_table(found)
    return made.getvalue()


FILES: dict[str, list[bytes]] = {
    "text": [b"One.\nTwo.\n", "Eins.\n".encode("utf-16")],
    "JSON lines, a JSON array, objects": [text.encode() for name, text in WRITTEN.items() if "CSV" not in name],
    "CSV and its kin": [text.encode() for name, text in WRITTEN.items() if "CSV" in name],
    "Parquet, Arrow": [columns("parquet"), columns("arrow")],
    "gzip, bzip2, xz": [pack(WRITTEN["CSV"].encode()) for pack in (gzip.compress, bz2.compress, lzma.compress)],
    "a folder": [],
    "a data set of the Hugging Face hub": [],
    "a data set that `datasets` saved to disk": [],
}
"""The rest is in `tests/data/test_layout.py`."""


def files_shown() -> list[str]:
    part = PAGE.read_text().split("## Files")[1].split("## Rows")[0]
    return [line for line in part.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", FILES)
def test_files_are_taken_as_the_page_says(name: str, tmp_path: Path) -> None:
    (line,) = [line for line in files_shown() if line.startswith(f"| {name}")]
    for data in FILES[name]:
        (tmp_path / "data").write_bytes(data)
        facts = inspect_data(tmp_path / "data")
        assert facts.rows == (1 if name == "text" else len(ROWS))
        assert facts.travels == (name not in ("Parquet, Arrow", "gzip, bzip2, xz"))
    assert line.count("|") == 3


def test_the_page_shows_no_row_that_is_not_tested() -> None:
    shown_rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "| `{" in line]
    assert len(shown_rows) == len(ACCEPTED) + len(REFUSED)
    assert len(files_shown()) == len(FILES) + 1
    assert set(RECORDED) == {case.name for case in ACCEPTED}
