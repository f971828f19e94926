"""Prose that is nothing else: a file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from fallow.data.formats.format import Format, Record
from fallow.data.source import Source

PART_CHARS = 1 << 16


class Plain(Format):
    """Comes in parts, since tokenizers slow down on long texts."""

    name = "text"

    def knows(self, source: Source) -> bool:
        return True

    def records(self, source: Source) -> Iterator[Record]:
        held, started, said = "", 1, False
        for number, piece in source.pieces():
            started = started if held else number
            held, said = held + piece, said or bool(piece.strip())
            while len(held) > PART_CHARS:
                part = next(parts_of(held))
                yield Record(source.place(started), part, continues=True)
                held, started = held[len(part) :], number
        if said:
            yield Record(source.place(started), held)


def parts_of(text: str) -> Iterator[str]:
    """A text in parts of at most PART_CHARS, cut at ends of lines where there are some. Always the same cuts."""
    start = 0
    while start < len(text):
        end = start + PART_CHARS
        cut = text.rfind("\n", start, end) + 1 if end < len(text) else len(text)
        stop = cut if cut > start else end
        yield text[start:stop]
        start = stop
