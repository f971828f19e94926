"""Parquet and Arrow."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.making import ROWS, failure, put, read


def test_parquet_and_what_its_empty_cells_mean(tmp_path: Path) -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1, "b": None}}}]
    hi, blank = {"role": "user", "content": "Hi", "tool_calls": None}, {"role": "assistant", "content": None}
    chats = [
        {"messages": [hi, blank | {"tool_calls": calls}]},
        {"messages": [hi, blank | {"content": "Ho", "tool_calls": None}]},
    ]
    pq.write_table(pa.Table.from_pylist(chats * 100), tmp_path / "data.parquet")
    rows, reading = read(tmp_path / "data.parquet")
    assert (len(rows), reading.travels) == (200, False)
    assert rows[0].messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert rows[1].messages == ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"})


def test_a_damaged_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "whole")
    assert "row 1 is a damaged file" in failure(put(tmp_path, "data", (tmp_path / "whole").read_bytes()[:-40])).what
    bad = pa.Table.from_pylist([*ROWS, {"instruction": "x"}])
    pq.write_table(bad, tmp_path / "bad")
    assert failure(tmp_path / "bad").what.startswith("bad, row 6 has the fields instruction;")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.ipc", None)
    error = failure(tmp_path / "data")
    assert (error.code, error.next_step) == ("E1708", "pip install 'fallow[data]'")
