"""What a file is, is told by what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.making import CHATS, WRITTEN, failure, put, read


@pytest.mark.parametrize("name", ["data", "data.txt", "data.json", "data.csv"])
@pytest.mark.parametrize("written", WRITTEN)
def test_whatever_it_is_called_it_is_read_as_what_it_is(tmp_path: Path, written: str, name: str) -> None:
    if name.endswith((".json", ".csv")) and ("CSV" in written) != name.endswith(".csv"):
        return  # JSON in a .csv is JSON; a table in a .json is refused, below
    rows, reading = read(put(tmp_path, name, WRITTEN[written]))
    assert rows == CHATS
    assert reading.shapes == {"Alpaca": 5}
    assert reading.formats == {"CSV" if "CSV" in written else "JSON": 1}


def test_json_in_a_csv_is_json_and_a_table_in_a_json_is_refused(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.csv", WRITTEN["an indented array"]))[0] == CHATS
    assert failure(put(tmp_path, "a.json", WRITTEN["CSV"])).code == "E1702"
