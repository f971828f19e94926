"""Files that are no training data, by their beginnings: named, so that nobody wonders what line 1 of a picture has."""

from __future__ import annotations

from collections.abc import Iterator

from fallow.data.formats.format import Format, Record
from fallow.data.rows import RowError, refusal
from fallow.data.source import Source

_UNPACK = "unpack it first"
_KNOWN: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "a PDF file", "save its text as .txt"),
    (b"PK\x03\x04", "a ZIP archive (.docx and .xlsx are such, too)", "unpack it, or save it as text or CSV"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it first: zstd -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as text or CSV"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV or JSON"),
    (b"\x93NUMPY", "a NumPy array", "give text, not numbers"),
    (b"\x89HDF", "an HDF5 file", "give text, not numbers"),
    (b"\x89PNG", "a picture", "only text can be trained on"),
    (b"\xff\xd8\xff", "a picture", "only text can be trained on"),
    (b"GIF8", "a picture", "only text can be trained on"),
    (b"OggS", "a sound", "only text can be trained on"),
    (b"GGUF", "a model", "give it as --model"),
    (b"\x80\x04", "a pickle", "pickles run code when they are read; save it as JSON lines or Parquet"),
    (b"\x80\x05", "a pickle", "pickles run code when they are read; save it as JSON lines or Parquet"),
)
_TAR = 257, b"ustar"


class Other(Format):
    """Refuses by name."""

    name = "no data"

    def knows(self, source: Source) -> bool:
        return bool(self._kind(source))

    def records(self, source: Source) -> Iterator[Record]:
        raise refusal(source.name, RowError(f"is {self._kind(source)}"))

    @staticmethod
    def _kind(source: Source) -> str:
        place, magic = _TAR
        if source.first[place : place + len(magic)] == magic:
            return f"a tar archive: {_UNPACK}"
        return next((f"{what}: {then}" for start, what, then in _KNOWN if source.first.startswith(start)), "")
