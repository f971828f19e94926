"""A file as text, whatever its compression and encoding: both are told by what the file is, not by its name.

Defends against: bytes that are no text, lines without end (they come in pieces), archives that are cut off. Does not
defend against: an archive that unpacks without end; whoever reads it keeps no more than a piece, but for ever.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fallow.data.rows import RowError, refusal

PIECE_BYTES = 1 << 20
"""A longer line comes in pieces."""
MAX_ROW_CHARS = 16 << 20
"""No row is longer."""
HEAD_BYTES = 1 << 16
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_PACKED: tuple[tuple[bytes, str, Callable[[Path], object]], ...] = (
    (rb"\x1f\x8b", "gzip", gzip.GzipFile),
    (rb"BZh[1-9]1AY&SY", "bzip2", bz2.BZ2File),
    (rb"\xfd7zXZ\x00", "xz", lzma.LZMAFile),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A file: the `first` bytes of what it holds when unpacked, how it is `packed` ("" when it is not) and its
    `encoding`."""

    path: Path
    packed: str
    first: bytes
    encoding: str

    @property
    def name(self) -> str:
        """What people call it; `.gz` and the like are no part of a file's kind."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """The ending that says what it holds, in small letters."""
        stem = self.path.with_suffix("") if self.packed and self.path.suffix else self.path
        return stem.suffix.lower()

    def head(self) -> str:
        """The beginning as text; what cannot be decoded is left out, and a last line that may go on."""
        text = codecs.decode(self.first, self.encoding, "ignore")
        return text if len(self.first) < HEAD_BYTES else text[: text.rfind("\n") + 1] or text

    def place(self, number: int, unit: str = "line") -> str:
        """How an error begins that is about a line or row."""
        return f"{self.name}, {unit} {number}"

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Numbered lines, each with its end; a line longer than PIECE_BYTES in pieces of one number. Errors: E1702 with
        the line for bytes that are no text, or an archive that is damaged."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        number = 1
        with self.open() as stream:
            while True:
                with self._damage_told():
                    raw = stream.readline(PIECE_BYTES)
                try:
                    text = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    wanted = "UTF-8" if self.encoding.startswith("utf-8") else self.encoding.upper()
                    what = f"is not {wanted} (byte {error.start + 1}); save the file as UTF-8"
                    raise refusal(self.place(number), RowError(what)) from error
                if "\0" in text:
                    raise refusal(self.place(number), RowError("holds a zero byte: this is no text"))
                for part in _LINE.findall(text):
                    yield number, part
                    number += part.endswith("\n")
                if not raw:
                    return

    def lines(self) -> Iterator[tuple[int, str]]:
        """Whole lines with their numbers. Errors: as `pieces`; E1702 for one longer than MAX_ROW_CHARS."""
        kept: list[str] = []
        started, size = 0, 0
        for number, piece in self.pieces():
            if number != started and kept:
                yield started, "".join(kept)
                kept, size = [], 0
            started, size = number, size + len(piece)
            if size > MAX_ROW_CHARS:
                raise refusal(self.place(number), RowError(f"has more than {MAX_ROW_CHARS:,} characters"))
            kept.append(piece)
        if kept:
            yield started, "".join(kept)

    def open(self) -> BinaryIO:
        """The file's bytes, unpacked."""
        opened = next((act for _, kind, act in _PACKED if kind == self.packed), None)
        return cast(BinaryIO, opened(self.path)) if opened else self.path.open("rb")

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise refusal(self.name, RowError(f"is a damaged {self.packed} file ({error})")) from error
        except OSError as error:
            if not self.packed or error.errno is not None:
                raise
            raise refusal(self.name, RowError(f"is a damaged {self.packed} file ({error})")) from error


def source_of(path: Path) -> Source:
    """Look at a file's beginning. Errors: E1702 when it is a damaged archive."""
    with path.open("rb") as stream:
        start = stream.read(10)
    packed = next((kind for magic, kind, _ in _PACKED if re.match(magic, start, re.DOTALL)), "")
    plain = Source(path, packed, b"", "utf-8")
    with plain.open() as stream, plain._damage_told():  # pyright: ignore[reportPrivateUsage]
        first = stream.read(HEAD_BYTES)
    encoding = next((name for mark, name in _MARKS if first.startswith(mark)), "utf-8")
    return Source(path, packed, first, encoding)
