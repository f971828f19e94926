"""Files that are no training data."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.making import failure, put


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("%PDF-1.7 ...", "is a PDF file"),
        (b"PK\x03\x04 and so on", "ZIP archive"),
        (b"\x28\xb5\x2f\xfd and so on", "zstd -d"),
    ],
)
def test_what_is_no_data_is_called_by_its_name(tmp_path: Path, data: str | bytes, words: str) -> None:
    error = failure(put(tmp_path, "data", data))
    assert error.code == "E1702"
    assert words in error.what
