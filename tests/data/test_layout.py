"""Which files of a folder are the data."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.making import CHATS, ROWS, failure, put, read

from fallow.data.rows import Prose


def saved(folder: Path, rows: list[dict]) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves."""
    folder.mkdir(parents=True)
    found = pa.Table.from_pylist(rows)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, found.schema) as out,
    ):
        out.write_table(found)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_data_set_as_datasets_saves_it(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "one", ROWS))[0] == CHATS
    saved(tmp_path / "several" / "test", ROWS[:1])
    saved(tmp_path / "several" / "train", ROWS)
    (tmp_path / "several" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    rows, reading = read(tmp_path / "several")
    assert (rows, reading.files, reading.left_out) == (CHATS, 1, 1)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", 7])
def test_a_data_set_that_reaches_out(tmp_path: Path, name: object) -> None:
    folder = saved(tmp_path / "one", ROWS)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert failure(folder).code == "E1702"


def test_a_data_set_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    put(tmp_path, "README.md", "# A data set")
    put(tmp_path, ".gitattributes", "*.parquet filter=lfs")
    for name, some in (
        ("train-00000-of-00002", ROWS[:2]),
        ("train-00001-of-00002", ROWS[2:]),
        ("test-00000-of-00001", ROWS),
    ):
        pq.write_table(pa.Table.from_pylist(some), tmp_path / "data" / f"{name}.parquet")
    rows, reading = read(tmp_path)
    assert (rows, reading.files, reading.left_out) == (CHATS, 2, 1)


def test_a_file_that_is_not_there_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "data", "text")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    error = failure(path)
    assert (error.code, error.what) == ("E2003", "data cannot be read: Permission denied.")


def test_splits_of_texts(tmp_path: Path) -> None:
    for name in ("README.md", "train.txt", "test.txt", "train-on-dev-machines.txt"):
        put(tmp_path, name, name)
    rows, facts = read(tmp_path)
    assert [row.text for row in rows] == ["train-on-dev-machines.txt", "train.txt"]
    assert facts.left_out == 1


def test_a_folder_of_texts(tmp_path: Path) -> None:
    assert failure(tmp_path / "nowhere").code == "E2003"
    assert failure(tmp_path).code == "E1702"
    put(tmp_path, "b.md", "second")
    put(tmp_path, "README.md", "first")
    put(tmp_path, ".hidden", "never")
    assert read(tmp_path)[0] == [Prose("first"), Prose("second")]
    put(tmp_path, "c.png", b"\x89PNG\r\n\x1a\n")
    assert failure(tmp_path).what == "c.png is a picture: only text can be trained on."
