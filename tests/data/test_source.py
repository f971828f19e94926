"""Bytes as text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
from tests.data.making import CHATS, WRITTEN, failure, put, read

from fallow.data.rows import Prose

PACKED = {
    "as it is": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x01\x02", "line 1 holds a zero byte"),
        (b"fine\nfine\nbad \xff byte\n", "line 3 is not UTF-8 (byte 5)"),
        (gzip.compress(b"text " * 1000)[:-20], "is a damaged gzip file"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: str | bytes, words: str) -> None:
    error = failure(put(tmp_path, "data", data))
    assert error.code == "E1702"
    assert words in error.what


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("written", ["JSON lines", "an indented array", "CSV"])
def test_encodings_and_compression(tmp_path: Path, written: str, packing: str, encoding: str) -> None:
    rows, reading = read(put(tmp_path, "data", PACKED[packing](WRITTEN[written].encode(encoding))))
    assert rows == CHATS
    assert reading.travels == (packing == "as it is")


def test_a_text_in_utf_16(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "a.txt", "Eins.\r\nZwei é\n".encode("utf-16")))
    assert rows == [Prose("Eins.\r\nZwei é\n")]
