"""Texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.making import failure, put, read

TEXTS = {
    "prose": "One.\nTwo, three.\r\nÜber drei",
    "a script": "import os, sys\nimport re, io\nimport json, csv\n",
    "a poem": "Roses are red, violets are blue,\nsugar is sweet, and so are you.\n",
    "verses": "[Verse 1]\nLa la la\n[Verse 2]\nLa la\n",
    "braces": "{not json} but text\n",
    "many braces": "{" * 100_000,
    "references": "[1] A book.\n[2] Another.\n",
    "wiki": "[[Home]] is a page.\n",
    "a markdown table": "".join(f"| {n} | b |\n" for n in range(40)),
    "lines that end alike": "".join(f"and so we say,\nand so we go on {n};\n" for n in range(40)),
    "statements": "".join(f"INSERT INTO a VALUES {n};\n" for n in range(40)),
    "the word text": "text\nand more of it\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_texts(tmp_path: Path, name: str) -> None:
    rows, reading = read(put(tmp_path, "data", TEXTS[name]))
    assert "".join(row.text for row in rows) == TEXTS[name]
    assert (reading.rows, reading.formats) == (1, {"text": 1})


@pytest.mark.parametrize("data", [b"", b" \n\t\n", b"\xef\xbb\xbf", b'{"text": ""}\n'])
def test_nothing(tmp_path: Path, data: bytes) -> None:
    assert failure(put(tmp_path, "data", data)).code == "E1703"
