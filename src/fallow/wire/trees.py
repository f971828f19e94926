"""A folder as a content-addressed blob: a sorted list of files by path, blob and size.

Trees come from strangers and are written to disk, so a path must be relative, inside the folder, and mean the same file
on every system. Defends against: `../` and absolute paths, Windows drives, devices and alternate streams, two names
that one file system takes for the same file, a file that is also a folder, letters that make a name look like another
or steer a terminal, and trees without end. Does not defend against what the files contain.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from fallow.errors import FallowError, fail
from fallow.wire.codec import decode, encode
from fallow.wire.documents import U64, Word

MAX_TREE_BYTES = 16 << 20
MAX_ENTRIES = 65_536
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_FORBIDDEN = set('\\:*?"<>|') | set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What some systems do not allow, and what turns the order of letters round, so that gpj.exe reads as a picture."""


class TreeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One file. `path` is relative to the folder, with `/` between names."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH_BYTES)]
    blob: Word
    size_bytes: U64
    executable: bool = False


class Tree(msgspec.Struct, frozen=True, tag="tree", forbid_unknown_fields=True, array_like=True):
    """All files of a folder, sorted by the UTF-8 bytes of their paths. Empty folders are not kept."""

    entries: Annotated[tuple[TreeEntry, ...], msgspec.Meta(max_length=MAX_ENTRIES)]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)


def encode_tree(entries: Iterable[TreeEntry]) -> bytes:
    """The tree of these files (in any order) as a blob's bytes. Raises UsageError E1104 for a path that could not be
    written everywhere, or too many files."""
    ordered = tuple(sorted(entries, key=lambda entry: entry.path.encode(errors="replace")))
    problem = _problem(ordered)
    if not problem and len(data := encode(Tree(ordered))) <= MAX_TREE_BYTES:
        return data
    raise fail("E1104", problem or "the folder's list of files is too long")


def decode_tree(data: bytes) -> Tree:
    """Read a tree that somebody sent. Raises PeerFault E1102 for anything that `encode_tree` would not have made."""
    tree = decode(Tree, data, MAX_TREE_BYTES)
    problem = _problem(tree.entries)
    if problem:
        raise fail("E1102", f"a folder that cannot be written: {problem}")
    return tree


def is_tree(data: bytes) -> bool:
    """Whether a blob's bytes are a tree, for blobs that may be either a file or a folder."""
    try:
        decode_tree(data)
    except FallowError:
        return False
    return True


def path_problem(path: str) -> str:
    """What is wrong with one path, in words, or "" when nothing is."""
    if not path or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        return f"a path of {len(path)} characters"
    if unicodedata.normalize("NFC", path) != path:  # macOS would write it under another name
        return f"{path!r} is not in Unicode's composed form"
    return next((problem for name in path.split("/") if (problem := _name_problem(name, path))), "")


def _name_problem(name: str, path: str) -> str:
    if name in ("", ".", ".."):
        return f"{path!r} has an empty, `.` or `..` part"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"a name in {path[:80]!r} is longer than {MAX_NAME_BYTES} bytes"
    if any(c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return f"{path!r} has a character that some systems do not allow"
    if name[-1] in ". " or name.split(".")[0].casefold().rstrip(" ") in _DEVICES:
        return f"{path!r} has a name that Windows takes for another"
    return ""


def _problem(entries: Sequence[TreeEntry]) -> str:
    """The first thing wrong with a whole list, in words, or ""."""
    if len(entries) > MAX_ENTRIES:
        return f"{len(entries)} files, at most {MAX_ENTRIES} can travel together"
    last = b""
    seen = _Names()
    for entry in entries:
        problem = path_problem(entry.path) or seen.add(entry.path)
        if problem:
            return problem
        key = entry.path.encode()
        if key <= last:
            return f"{entry.path!r} is out of order"
        last = key
    return ""


class _Names:
    """Every file and folder so far, by the name under which a case-blind file system knows it."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: set[str] = set()

    def add(self, path: str) -> str:
        """Note a file's path; -> what it collides with, in words, or ""."""
        names = path.split("/")
        for depth in range(1, len(names)):
            folder = "/".join(names[:depth])
            known = self._folders.setdefault(_fold(folder), folder)
            if known != folder or _fold(folder) in self._files:
                return f"{path!r} collides with {known!r}"
        if _fold(path) in self._files or _fold(path) in self._folders:
            return f"{path!r} collides with another file or folder"
        self._files.add(_fold(path))
        return ""


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name.casefold()).casefold()
