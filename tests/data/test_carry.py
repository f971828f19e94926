"""What travels is what any machine can read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.making import CHATS, ROWS, WRITTEN, put, read

from fallow.data.carry import portable
from fallow.data.formats import plain


@pytest.mark.parametrize("written", WRITTEN)
def test_what_any_machine_can_read_travels_as_it_is(tmp_path: Path, written: str) -> None:
    path = put(tmp_path, "data", WRITTEN[written])
    assert portable(path, tmp_path / "kept") == path
    assert not (tmp_path / "kept").exists()


def test_the_rest_is_written_as_json_lines_with_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data.parquet")
    packed = put(tmp_path, "data.csv.gz", gzip.compress(WRITTEN["CSV"].encode()))
    found = {portable(path, tmp_path / "kept") for path in (tmp_path / "data.parquet", packed)}
    (path,) = found  # the same rows, the same name
    assert read(path)[0] == CHATS
    monkeypatch.setattr(plain, "PART_CHARS", 7)
    text = portable(put(tmp_path, "text.gz", gzip.compress(b"One.\nTwo, three.\n")), tmp_path / "kept")
    assert text.read_bytes() == b"One.\nTwo, three.\n"
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a", "b"):
        put(two, f"{name}.gz", gzip.compress(f"One {name}.\nTwo.\n".encode()))
    monkeypatch.undo()
    assert [row.text for row in read(portable(two, tmp_path / "kept"))[0]] == ["One a.\nTwo.\n", "One b.\nTwo.\n"]
    assert not list((tmp_path / "kept").glob("*.part"))
