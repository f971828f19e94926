"""Tables, and what somebody meant to be one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.making import failure, put


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("name,age,town\n" + "Al,3,Ur\n" * 5, "line 2 has the fields name, age, town"),
        ("".join(f"{n},{n * n},{n + 1}\n" for n in range(2, 20)), "has the fields"),
        ("prompt,completion\na,b\nc\n", "line 3 has 1 cells, and there are 2 columns"),
        ('prompt,completion\n"a,b\n', "line 2 is no row of a table"),
    ],
)
def test_what_looks_like_a_table_is_no_text(tmp_path: Path, data: str | bytes, words: str) -> None:
    error = failure(put(tmp_path, "data", data))
    assert error.code == "E1702"
    assert words in error.what
