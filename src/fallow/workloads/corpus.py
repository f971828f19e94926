"""Training data as people have it: a UTF-8 text, or JSONL of chats or texts. Read, checked, and nothing else; no torch.

- Text: the whole file is one document.
- JSONL (the name ends in `.jsonl`, or the first line is a JSON object): each line is a document, either
  `{"messages": [{"role": ..., "content": ...}, ...]}` or `{"text": ...}`. Other keys are let be.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fallow.errors import FallowError, fail
from fallow.workloads.json_input import parse_json

MAX_LINE_BYTES = 16 << 20
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Chat:
    """A conversation: (role, content) pairs."""

    turns: tuple[tuple[str, str], ...]


CorpusItem = str | Chat


@dataclass(frozen=True)
class DataFacts:
    """`form` is "text" or "jsonl"; `documents` counts the lines of a JSONL that say something, and is 1 for a text."""

    form: str
    file: Path
    size_bytes: int
    lines: int
    documents: int
    chats: int


def inspect_data(path: Path) -> DataFacts:
    """Read and check all of the data at `path` (a file, or a folder with one file) without torch, so that what is wrong
    is found before anything is spent. Errors: UsageError E2003 when there is nothing; E1702 with the line when it is
    not UTF-8, or a line is no chat or text; E1703 when it is empty."""
    file = data_file(path)
    lines, documents, chats = 0, 0, 0
    if is_jsonl(file):
        for _, item in _jsonl(file):
            documents, chats = documents + 1, chats + isinstance(item, Chat)
        lines = max((number for number, _ in _lines(file)), default=0)
    else:
        for number, line in _lines(file):
            lines, documents = number, documents or int(bool(line.strip()))
    if not documents:
        raise fail("E1703", f"{file.name} is empty.")
    return DataFacts("jsonl" if is_jsonl(file) else "text", file, file.stat().st_size, lines, documents, chats)


def documents(path: Path) -> Iterator[CorpusItem]:
    """The documents of the data at `path`, in order. Errors as `inspect_data`."""
    file = data_file(path)
    if is_jsonl(file):
        yield from (item for _, item in _jsonl(file))
    else:
        yield "".join(line for _, line in _lines(file))


def data_file(path: Path) -> Path:
    """The one file at `path`. Errors: E2003 when there is none, E1702 when a folder holds several."""
    if not path.exists():
        raise fail("E2003", f"There is no {path}.")
    if path.is_file():
        return path
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if len(files) != 1:
        raise fail("E1702", f"{path.name} holds {len(files)} files; training data is one file.")
    return files[0]


def is_jsonl(file: Path) -> bool:
    """Whether a data file is JSONL: by its name, or because its first line is a JSON object."""
    if file.suffix == ".jsonl":
        return True
    with file.open("rb") as stream:
        first = stream.readline(MAX_LINE_BYTES).strip()
    if not first.startswith(b"{"):
        return False
    try:
        return isinstance(parse_json(first), dict)
    except ValueError:
        return False


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded one by one, so that a wrong byte is found with its line. A line longer than
    MAX_LINE_BYTES comes in pieces of one number."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.open("rb") as stream:
        number, first = 1, True
        while True:
            line = stream.readline(MAX_LINE_BYTES)
            try:
                text = decoder.decode(line, final=not line)
            except UnicodeDecodeError as error:
                raise _bad_line(file, number, f"is not UTF-8 (byte {error.start + 1})") from error
            if "\0" in text:
                raise _bad_line(file, number, "holds a zero byte: this is no text")
            if not line:
                return
            yield number, text.removeprefix("\ufeff") if first and text else text
            first = first and not text
            number += line.endswith(b"\n")


def _jsonl(file: Path) -> Iterator[tuple[int, CorpusItem]]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise _bad_line(file, number, f"is no JSON ({str(error)[:100]})") from error
        if not isinstance(entry, dict):
            raise _bad_line(file, number, "is no JSON object")
        item = _item(file, number, cast(dict[str, Any], entry))
        if item != "":
            yield number, item


def _item(file: Path, number: int, entry: dict[str, Any]) -> CorpusItem:
    if isinstance(entry.get("text"), str):
        return cast(str, entry["text"])
    messages = entry.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad_line(file, number, "has neither `messages` nor `text`")
    turns: list[tuple[str, str]] = []
    for message in cast(list[Any], messages):
        role = cast(dict[str, Any], message).get("role") if isinstance(message, dict) else None
        content = cast(dict[str, Any], message).get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str):
            raise _bad_line(file, number, f"has a message without `content` or with a role not in {ROLES}")
        turns.append((cast(str, role), content))
    return Chat(tuple(turns))


def _bad_line(file: Path, number: int, what: str) -> FallowError:
    return fail("E1702", f"{file.name}, line {number} {what}.")
