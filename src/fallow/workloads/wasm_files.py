"""The files that a program sees: a tree in memory with its inputs, to read, and folders for what it writes. No name of
the host's is ever opened by a program's wish, so no path leads out of it, and nothing of it differs between machines:
files are numbered in the order they were made, and have no times.

Defends against: paths that lead elsewhere, links (there are none), and writing more than was agreed on, in bytes or in
files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from fallow.errors import fail
from fallow.kinds.wasm.tasks import MAX_FILES, OUTPUTS
from fallow.wire.trees import path_problem

MAX_NAME_BYTES, MAX_DEPTH = 255, 64
MAX_PART_NAME = 120
BADF, EXIST, FAULT, ILSEQ, INVAL, ISDIR, MFILE, NAMETOOLONG = 8, 20, 21, 25, 28, 31, 33, 37
NOENT, NOSPC, NOTDIR, NOTEMPTY, NOTSUP, ROFS, SPIPE, NOTCAPABLE = 44, 51, 54, 55, 58, 69, 70, 76


class Errno(Exception):
    """What a call answers a program; 0 is success, and no exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Room:
    """What may still be written, by all files and what is printed together."""

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes, self.left_files, self._numbers = size_bytes, MAX_FILES, 0

    def take(self, size_bytes: int) -> None:
        """Raises NOSPC when there is not so much left. What is given back is negative."""
        if size_bytes > self.left_bytes:
            raise Errno(NOSPC)
        self.left_bytes -= size_bytes

    def add(self) -> None:
        """One more file or folder; a removed one still counts."""
        if not self.left_files:
            raise Errno(NOSPC)
        self.left_files -= 1

    def number(self) -> int:
        """The next file's."""
        self._numbers += 1
        return self._numbers


class File:
    """A file; `content` of one that cannot be written is whatever holds its bytes."""

    def __init__(self, room: Room, content: bytes | mmap.mmap | None = None) -> None:
        self._room, self.number = room, room.number()
        self._own = bytearray() if content is None else None
        self._content = memoryview(content) if content is not None else None

    @property
    def writable(self) -> bool:
        return self._own is not None

    @property
    def size(self) -> int:
        return len(self._own) if self._own is not None else len(self._content or b"")

    def read(self, at: int, count: int) -> bytes:
        """At most `count` bytes from `at` on."""
        if self._own is not None:
            return bytes(memoryview(self._own)[at : at + count])
        return bytes(self._content[at : at + count]) if self._content is not None else b""

    def write(self, at: int, data: bytes) -> None:
        """Put `data` at `at`; what lies between the end and there becomes zeros. Raises NOSPC, ROFS."""
        own = self._writable()
        if at + len(data) > len(own):
            self.resize(at + len(data))
        own[at : at + len(data)] = data

    def resize(self, size_bytes: int) -> None:
        """Raises NOSPC, ROFS."""
        own = self._writable()
        self._room.take(size_bytes - len(own))
        if size_bytes < len(own):
            del own[size_bytes:]
        else:
            own.extend(bytes(size_bytes - len(own)))

    def _writable(self) -> bytearray:
        if self._own is None:
            raise Errno(ROFS)
        return self._own


class Folder:
    """A folder. `path` is where it lies, without a slash in front; `writable` says whether files may be made in it."""

    def __init__(self, room: Room, path: str = "", *, writable: bool = False) -> None:
        self.room, self.path, self.writable = room, path, writable
        self.number = room.number()
        self.entries: dict[str, File | Folder] = {}

    def find(self, name: str) -> File | Folder:
        """Raises NOENT."""
        found = self.entries.get(name)
        if found is None:
            raise Errno(NOENT)
        return found

    def folder(self, name: str) -> Folder:
        """A folder in it. Raises NOENT, NOTDIR."""
        found = self.find(name)
        if isinstance(found, File):
            raise Errno(NOTDIR)
        return found

    def make_file(self, name: str) -> File:
        """Raises ROFS, NOSPC, and INVAL for a name that a result cannot have."""
        self.check(name)
        self.room.add()
        made = self.entries[name] = File(self.room)
        return made

    def make_folder(self, name: str) -> None:
        """Raises as `make_file` does, EXIST for what is there."""
        if name in self.entries:
            raise Errno(EXIST)
        self.check(name)
        self.room.add()
        self.entries[name] = Folder(self.room, self._path_of(name), writable=True)

    def remove_file(self, name: str) -> File:
        """-> the file that was there; what it holds stays taken from the room, since whoever has it open may go on with
        it. Raises NOENT, ISDIR, ROFS."""
        found = self.find(name)
        if isinstance(found, Folder):
            raise Errno(ISDIR)
        if not self.writable:
            raise Errno(ROFS)
        del self.entries[name]
        return found

    def remove_folder(self, name: str) -> None:
        """Raises NOENT, NOTDIR, NOTEMPTY, ROFS."""
        if self.folder(name).entries:
            raise Errno(NOTEMPTY)
        if not self.writable:
            raise Errno(ROFS)
        del self.entries[name]

    def move(self, name: str, to: Folder, new: str) -> None:
        """Give a file another name, maybe in another folder. Raises as the others do; NOTSUP for a folder."""
        found = self.find(name)
        if isinstance(found, Folder):
            raise Errno(NOTSUP)
        if not self.writable:
            raise Errno(ROFS)
        if isinstance(to.entries.get(new), Folder):
            raise Errno(ISDIR)
        to.check(new)
        del self.entries[name]
        to.entries.pop(new, None)
        to.entries[new] = found

    def check(self, name: str) -> None:
        """Whether a file may be called so here: raises ROFS, INVAL or NAMETOOLONG where not."""
        if not self.writable:
            raise Errno(ROFS)
        path = self._path_of(name)
        # ASCII: what is a letter beyond that depends on the version of Python
        if not name.isascii() or path.count("/") > MAX_DEPTH or path_problem(path):
            raise Errno(INVAL)
        if len(path) > MAX_PART_NAME:
            raise Errno(NAMETOOLONG)

    def _path_of(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


def resolve(folder: Folder, path: str, root: Folder) -> tuple[Folder, str]:
    """Where `path`, as seen from `folder`, leads: the folder that it lies in and its last name, "" for that folder
    itself. Raises NOTCAPABLE for what leads out of everything, NOENT, NOTDIR, NAMETOOLONG."""
    if path.startswith("/"):
        raise Errno(NOTCAPABLE)
    way = _folders_to(root, folder)
    names = [name for name in path.split("/") if name not in ("", ".")]
    for place, name in enumerate(names):
        if len(name.encode()) > MAX_NAME_BYTES:
            raise Errno(NAMETOOLONG)
        last = place == len(names) - 1
        if name == "..":
            if len(way) == 1:
                raise Errno(NOTCAPABLE)
            way.pop()
        elif last:
            return way[-1], name
        else:
            way.append(way[-1].folder(name))
    return way[-1], ""


def _folders_to(root: Folder, folder: Folder) -> list[Folder]:
    way = [root]
    for name in folder.path.split("/") if folder.path else ():
        way.append(way[-1].folder(name))
    return way


def tree(inputs: dict[str, Path], room: Room) -> Folder:
    """What a program finds: /in with its inputs, which are files or folders of the host's, /out and /tmp."""
    root = Folder(room)
    for name, path in sorted(inputs.items()):
        _put(root, name.split("/"), path)
    for name in (OUTPUTS, "tmp"):
        root.entries[name] = Folder(room, name, writable=True)
    return root


def _put(root: Folder, names: list[str], path: Path) -> None:
    at = root
    for name in names[:-1] if path.is_file() else names:
        found = at.entries.setdefault(name, Folder(at.room, f"{at.path}/{name}" if at.path else name))
        if isinstance(found, File):
            raise fail("E1707", f"One input is the file {name!r}, another lies in a folder of that name.")
        at = found
    if path.is_file():
        at.entries[names[-1]] = File(at.room, _mapped(path))
        return
    for inner in sorted(path.iterdir()):
        _put(root, [*names, inner.name], inner)


def _mapped(path: Path) -> bytes | mmap.mmap:
    with path.open("rb") as opened:
        size = path.stat().st_size
        return mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) if size else b""


def written(root: Folder) -> Iterator[tuple[str, File]]:
    """The files below /out by their paths, which begin with out/; a file whose name was taken over by another is not
    among them."""
    waiting = [root.folder(OUTPUTS)]
    while waiting:
        at = waiting.pop()
        for name, found in at.entries.items():
            if isinstance(found, Folder):
                waiting.append(found)
            else:
                yield f"{at.path}/{name}", found
