"""Whatever bytes, there are rows or a coded refusal that names the place, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.data import source
from fallow.data.formats import json_values, plain
from fallow.data.read import DataFacts, inspect_data, rows_of, written
from fallow.data.rows import Chat, Prose
from fallow.data.shapes.registry import SHAPES
from fallow.errors import FallowError

EXAMPLES = [json.loads(shape.example) for shape in SHAPES if shape.example]
NAMES = st.sampled_from(
    ["data", "data.txt", "data.json", "data.jsonl", "data.csv", "data.tsv", "data.parquet", "data.arrow"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["role", "content", "from", "value", "type", "text", "name", "arguments", "function", "tool_calls", "weight"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for row in EXAMPLES for name in row} | {"chosen", "rejected", "tools", "system"})),
    VALUES | st.text(max_size=9), max_size=5,
)  # fmt: skip


def taken(data: bytes, name: str = "data") -> list:
    """The rows, or none and a refusal as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        reading, error = DataFacts(), None
        try:
            rows = list(rows_of(path, reading))
        except FallowError as found:
            error, rows = found, []
    if error is not None:
        assert error.code in ("E1702", "E1703", "E1711")
        assert error.what.startswith("data")
        return []
    assert reading.rows == sum(not (isinstance(row, Prose) and row.continues) for row in rows) > 0
    return rows


@given(
    data=st.binary(max_size=300),
    name=NAMES,
    start=st.sampled_from([b"", b"\x1f\x8b", b"PAR1", b"\xff\xfe", b"BZh91AY&SY", b"ARROW1\0\0"]),
)
def test_any_bytes(data: bytes, name: str, start: bytes) -> None:
    taken(start + data, name)


@given(text=st.text(alphabet='[]{}",\\:a1 \n', max_size=200), name=NAMES)
def test_anything_like_json(text: str, name: str) -> None:
    taken(text.encode(), name)


@given(text=st.text(alphabet='",;\t|a\n\r ', max_size=200), name=NAMES)
def test_anything_like_a_table(text: str, name: str) -> None:
    taken(text.encode(), name)


@given(rows=st.lists(FIELDS, min_size=1, max_size=4), indent=st.none() | st.integers(0, 3), name=NAMES)
def test_any_rows(rows: list, indent: int | None, name: str) -> None:
    data = "\n".join(json.dumps(row, indent=indent) for row in rows).encode("utf-8", "surrogatepass")
    taken(data, name)


@given(
    rows=st.lists(st.sampled_from(EXAMPLES), min_size=1, max_size=5),
    how=st.sampled_from(["lines", "array", "indented", "tight"]),
    size=st.integers(1, 40),
)
def test_rows_are_the_same_however_they_are_written_and_cut(rows: list, how: str, size: int) -> None:
    forms = {
        "lines": "\n".join(json.dumps(row) for row in rows),
        "array": json.dumps(rows),
        "indented": json.dumps(rows, indent=2),
        "tight": "".join(json.dumps(row) for row in rows),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "PIECE_BYTES", size)
        found = taken(forms[how].encode(), "data")
    wanted = taken("\n".join(json.dumps(row) for row in rows).encode(), "data")
    assert found == wanted
    again = taken("\n".join(written(row) for row in found).encode(), "data")
    assert again == found


@given(text=st.text(alphabet="aé\n😀", min_size=1).filter(str.strip), limit=st.integers(1, 9), part=st.integers(1, 30))
def test_long_lines_are_not_cut_inside_a_character(text: str, limit: int, part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "PIECE_BYTES", limit)
        patch.setattr(plain, "PART_CHARS", part)
        found = taken(text.encode(), "data")
        assert [row.text for row in found] == list(plain.parts_of(text))
    assert [row.continues for row in found] == [True] * (len(found) - 1) + [False]


@pytest.mark.parametrize("data", ['{"text": "' + "a" * 3000 + '"}', '[{"text": "' + "a" * 3000 + '"}]'])
def test_a_row_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    for module in (source, json_values):
        monkeypatch.setattr(module, "MAX_ROW_CHARS", 1000)
    monkeypatch.setattr(source, "PIECE_BYTES", 100)
    (tmp_path / "data").write_text(data)
    with pytest.raises(FallowError, match=r"line 1 .*more than 1,000 characters"):
        inspect_data(tmp_path / "data")


@pytest.mark.parametrize("form", ["text", "lines", "array"])
def test_a_large_file_takes_little_memory(tmp_path: Path, form: str) -> None:
    row = json.dumps({"text": "word " * 2000})
    data = {"text": "word " * 2000 + "\n", "lines": row + "\n", "array": row + ",\n"}[form] * 2000
    (tmp_path / "data").write_text(f"[{data[:-2]}]" if form == "array" else data)
    tracemalloc.start()
    try:
        assert inspect_data(tmp_path / "data").size_bytes > 19 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_what_is_learned_from_survives_writing() -> None:
    chat = Chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}), ({"x": 1},), 1)
    assert taken(written(chat).encode(), "data") == [chat]


def test_looking_at_data_and_models_needs_no_tensor_library() -> None:
    """The command line checks both before it spends anything, and must stay quick."""
    code = (
        "import sys; import fallow.data.read, fallow.workloads.model_files, fallow.workloads.worker\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'xllamacpp', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
