from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError
from fallow.workloads import corpus
from fallow.workloads.corpus import Chat, documents, inspect_data

CHAT = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def failure(path: Path) -> FallowError:
    with pytest.raises(FallowError) as caught:
        inspect_data(path)
    return caught.value


def test_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "One.\nTwo.\r\nÜber drei")
    facts = inspect_data(path)
    assert (facts.form, facts.lines, facts.documents, facts.size_bytes) == ("text", 3, 1, 21)
    assert list(documents(path)) == ["One.\nTwo.\r\nÜber drei"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert list(documents(write(tmp_path, "a.txt", b"\xef\xbb\xbfhello"))) == ["hello"]


def test_jsonl_of_chats_and_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", f'{CHAT}\n\n{{"text": "plain", "id": 7}}\n{{"text": ""}}\n')
    assert list(documents(path)) == [Chat((("user", "Hi"), ("assistant", "Ho"))), "plain"]
    facts = inspect_data(path)
    assert (facts.form, facts.lines, facts.documents, facts.chats) == ("jsonl", 4, 2, 1)


def test_jsonl_is_known_by_its_first_line_too(tmp_path: Path) -> None:
    assert inspect_data(write(tmp_path, "data", CHAT + "\n")).form == "jsonl"
    assert inspect_data(write(tmp_path, "poem.txt", "{not json} but text\n")).form == "text"
    assert inspect_data(write(tmp_path, "deep.txt", "{" * 100_000)).form == "text"


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("a.txt", b"fine\nfine\nbad \xff byte\n", "E1702", "line 3 is not UTF-8 (byte 5)"),
        ("a.txt", b"\x00\x01\x02", "E1702", "line 1 holds a zero byte"),
        ("a.txt", b"", "E1703", "empty"),
        ("a.txt", b" \n\t\n", "E1703", "empty"),
        ("a.jsonl", b"\n\n", "E1703", "empty"),
        ("a.jsonl", CHAT.encode() + b"\n{oops\n", "E1702", "line 2 is no JSON"),
        ("a.jsonl", b"[1]\n", "E1702", "line 1 is no JSON object"),
        ("a.jsonl", b"[" * 100_000, "E1702", "line 1 is no JSON"),
        ("a.jsonl", b'{"a": 1}\n', "E1702", "neither `messages` nor `text`"),
        ("a.jsonl", b'{"messages": []}\n', "E1702", "neither `messages` nor `text`"),
        ("a.jsonl", b'{"messages": [{"role": "king", "content": ""}]}', "E1702", "a role not in"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', "E1702", "without `content`"),
        ("a.jsonl", b'{"messages": ["hi"]}', "E1702", "without `content`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, data: bytes, code: str, words: str) -> None:
    error = failure(write(tmp_path, name, data))
    assert error.code == code
    assert words in error.what


def test_folders(tmp_path: Path) -> None:
    assert failure(tmp_path / "nowhere").code == "E2003"
    assert failure(tmp_path).code == "E1702"
    write(tmp_path, "a.txt", "text")
    assert inspect_data(tmp_path).file.name == "a.txt"
    write(tmp_path, "b.txt", "text")
    assert failure(tmp_path).code == "E1702"


@given(text=st.text(alphabet="aé\n😀", min_size=1), limit=st.integers(1, 9))
def test_long_lines_are_not_cut_inside_a_character(
    tmp_path_factory: pytest.TempPathFactory, text: str, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "MAX_LINE_BYTES", limit)
        path = write(tmp_path_factory.mktemp("lines"), "a.txt", text)
        assert list(documents(path)) == [text]


def test_looking_at_data_and_models_needs_no_tensor_library() -> None:
    """The command line checks both before it spends anything, and must stay quick."""
    code = (
        "import sys; import fallow.workloads.corpus, fallow.workloads.model_files, fallow.workloads.worker\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'xllamacpp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
