"""The calls of WASI preview 1 about files: those of `wasm_files.py`, and what is printed."""

from __future__ import annotations

import struct

import wasmtime

from fallow.workloads.wasm_files import (
    BADF,
    EXIST,
    INVAL,
    ISDIR,
    MFILE,
    NAMETOOLONG,
    NOENT,
    NOTDIR,
    ROFS,
    SPIPE,
    Errno,
    File,
    Folder,
    Room,
    resolve,
)
from fallow.workloads.wasm_memory import BYTE_FUEL, Memory, unsigned

EPOCH_NS = 946_684_800 * 10**9
"""When the world of a program begins: the year 2000."""
MAX_OPEN = 1_000
REGULAR, DIRECTORY = 4, 3
_APPEND = 1
_CREATE, _DIRECTORY, _EXCLUSIVE, _TRUNCATE = 1, 2, 4, 8
_TO_WRITE = 1 << 6 | 1 << 8 | 1 << 22
_ALL_RIGHTS = (1 << 30) - 1
_MOST = 1 << 63


class Printed:
    """What goes to standard output or standard error."""

    def __init__(self, room: Room) -> None:
        self._room, self.data = room, bytearray()

    def write(self, data: bytes) -> None:
        self._room.take(len(data))
        self.data += data


class Opened:
    """An open file or folder, and where in it one is."""

    def __init__(self, what: File | Folder | Printed, *, write: bool = False, append: bool = False) -> None:
        self.what, self.write, self.append, self.at = what, write, append, 0


class Files(Memory):
    """The calls about open files and paths. `root` is the folder that all paths lead from."""

    def __init__(self, store: wasmtime.Store, root: Folder, stdin: File, room: Room) -> None:
        super().__init__(store)
        self._root = root
        self.stdout, self.stderr = Printed(room), Printed(room)
        self._open: dict[int, Opened] = {
            0: Opened(stdin), 1: Opened(self.stdout), 2: Opened(self.stderr), 3: Opened(root),
        }  # fmt: skip

    # open files ---------------------------------------------------------------------------------------------------

    def _of(self, number: int) -> Opened:
        found = self._open.get(number)
        if found is None:
            raise Errno(BADF)
        return found

    def _file(self, number: int) -> tuple[Opened, File]:
        opened = self._of(number)
        if isinstance(opened.what, Folder):
            raise Errno(ISDIR)
        if not isinstance(opened.what, File):
            raise Errno(SPIPE)
        return opened, opened.what

    def _folder(self, number: int) -> Folder:
        found = self._of(number).what
        if not isinstance(found, Folder):
            raise Errno(NOTDIR)
        return found

    def _new(self, opened: Opened) -> int:
        if len(self._open) >= MAX_OPEN:
            raise Errno(MFILE)
        number = next(n for n in range(MAX_OPEN + 4) if n not in self._open)
        self._open[number] = opened
        return number

    def _fd_close(self, number: int) -> None:
        self._of(number)
        del self._open[number]

    def _fd_renumber(self, number: int, to: int) -> None:
        found = self._of(number)
        self._of(to)
        self._open[to] = found
        if number != to:
            del self._open[number]

    def _fd_advise(self, number: int, _at: int, _size: int, _advice: int) -> None:
        self._file(number)

    def _fd_allocate(self, number: int, at: int, size: int) -> None:
        opened, file = self._file(number)
        at, size = unsigned(at), unsigned(size)
        if not opened.write:
            raise Errno(BADF)
        if at + size > file.size:
            self._grow(file, at + size)

    def _fd_sync(self, number: int) -> None:
        self._of(number)

    _fd_datasync = _fd_sync

    def _fd_fdstat_get(self, number: int, at: int) -> None:
        opened = self._of(number)
        self._put(at, struct.pack("<BxHxxxxQQ", _type_of(opened.what), opened.append, _ALL_RIGHTS, _ALL_RIGHTS))

    def _fd_fdstat_set_flags(self, number: int, flags: int) -> None:
        self._of(number).append = bool(flags & _APPEND)

    def _fd_fdstat_set_rights(self, number: int, _base: int, _inheriting: int) -> None:
        self._of(number)

    def _fd_filestat_get(self, number: int, at: int) -> None:
        self._put(at, _stat(self._of(number).what))

    def _fd_filestat_set_size(self, number: int, size: int) -> None:
        opened, file = self._file(number)
        if not opened.write:
            raise Errno(BADF)
        self._grow(file, unsigned(size))

    def _fd_filestat_set_times(self, number: int, _atime: int, _mtime: int, _flags: int) -> None:
        self._of(number)

    def _grow(self, file: File, size: int) -> None:
        self._pay(max(size - file.size, 0) * BYTE_FUEL if size < 1 << 40 else 0)
        file.resize(size)

    def _fd_prestat_get(self, number: int, at: int) -> None:
        if number != 3 or self._of(3).what is not self._root:
            raise Errno(BADF)
        self._put(at, struct.pack("<B3xI", 0, 1))

    def _fd_prestat_dir_name(self, number: int, at: int, size: int) -> None:
        if number != 3:
            raise Errno(BADF)
        if not size & 0xFFFFFFFF:
            raise Errno(NAMETOOLONG)
        self._put(at, b"/")

    # reading and writing ------------------------------------------------------------------------------------------

    def _fd_read(self, number: int, vectors: int, count: int, told: int) -> None:
        opened, file = self._file(number)
        done = self._read(file, opened.at, vectors, count)
        opened.at += done
        self._put32(told, done)

    def _fd_pread(self, number: int, vectors: int, count: int, at: int, told: int) -> None:
        _, file = self._file(number)
        self._put32(told, self._read(file, unsigned(at), vectors, count))

    def _read(self, file: File, at: int, vectors: int, count: int) -> int:
        done = 0
        for place, size in self._pieces(vectors, count):
            taken = min(size, max(file.size - at - done, 0))
            self._pay(taken * BYTE_FUEL)
            self._view(place, taken)[:] = file.read(at + done, taken)
            done += taken
            if taken < size:
                break
        return done

    def _fd_write(self, number: int, vectors: int, count: int, told: int) -> None:
        opened = self._of(number)
        if isinstance(opened.what, Printed):
            done = 0
            for place, size in self._pieces(vectors, count):
                opened.what.write(self._get(place, size))
                done += size
        else:
            opened, file = self._file(number)
            at = file.size if opened.append else opened.at
            done = self._write(opened, file, at, vectors, count)
            opened.at = at + done
        self._put32(told, done)

    def _fd_pwrite(self, number: int, vectors: int, count: int, at: int, told: int) -> None:
        opened, file = self._file(number)
        self._put32(told, self._write(opened, file, unsigned(at), vectors, count))

    def _write(self, opened: Opened, file: File, at: int, vectors: int, count: int) -> int:
        if not opened.write:
            raise Errno(BADF)
        done = 0
        for place, size in self._pieces(vectors, count):
            data = self._get(place, size)
            self._pay(max(at + done - file.size, 0) * BYTE_FUEL if at < 1 << 40 else 0)
            file.write(at + done, data)
            done += size
        return done

    def _fd_seek(self, number: int, offset: int, whence: int, told: int) -> None:
        opened, file = self._file(number)
        base = {0: 0, 1: opened.at, 2: file.size}.get(whence)
        if base is None or not 0 <= base + offset < _MOST:
            raise Errno(INVAL)
        opened.at = base + offset
        self._put64(told, opened.at)

    def _fd_tell(self, number: int, told: int) -> None:
        opened, _ = self._file(number)
        self._put64(told, opened.at)

    def _fd_readdir(self, number: int, at: int, size: int, cookie: int, told: int) -> None:
        folder, size = self._folder(number), size & 0xFFFFFFFF
        entries: list[tuple[str, File | Folder]] = [(".", folder), ("..", folder), *folder.entries.items()]
        self._pay(len(entries))
        out = bytearray()
        for place in range(unsigned(cookie), len(entries)):
            name, what = entries[place]
            raw = name.encode()
            out += struct.pack("<QQIB3x", place + 1, what.number, len(raw), _type_of(what)) + raw
            if len(out) >= size:
                break
        self._put(at, bytes(out[:size]))
        self._put32(told, min(len(out), size))

    # paths --------------------------------------------------------------------------------------------------------

    def _at(self, number: int, at: int, size: int) -> tuple[Folder, str]:
        return resolve(self._folder(number), self._path(at, size & 0xFFFFFFFF), self._root)

    def _path_open(self, number: int, _follow: int, path: int, size: int, how: int, *rest: int) -> None:
        rights, _inherited, flags, told = rest
        folder, name = self._at(number, path, size)
        found = folder if not name else folder.entries.get(name)
        if found is None:
            if not how & _CREATE:
                raise Errno(NOENT)
            if how & _DIRECTORY:
                raise Errno(INVAL)
            found = folder.make_file(name)
        elif how & _EXCLUSIVE:
            raise Errno(EXIST)
        write = bool(unsigned(rights) & _TO_WRITE)
        if isinstance(found, Folder):
            if how & _TRUNCATE or (write and not how & _DIRECTORY):
                raise Errno(ISDIR)
            write = False
        else:
            self._may_be_opened(found, how, write=write)
        self._put32(told, self._new(Opened(found, write=write, append=bool(flags & _APPEND))))

    def _may_be_opened(self, file: File, how: int, *, write: bool) -> None:
        if how & _DIRECTORY:
            raise Errno(NOTDIR)
        if (write or how & _TRUNCATE) and not file.writable:
            raise Errno(ROFS)
        if how & _TRUNCATE:
            file.resize(0)

    def _path_create_directory(self, number: int, path: int, size: int) -> None:
        folder, name = self._at(number, path, size)
        if not name:
            raise Errno(EXIST)
        folder.make_folder(name)

    def _path_filestat_get(self, number: int, _follow: int, path: int, size: int, at: int) -> None:
        folder, name = self._at(number, path, size)
        self._put(at, _stat(folder.find(name) if name else folder))

    def _path_filestat_set_times(self, number: int, _follow: int, path: int, size: int, *_times: int) -> None:
        folder, name = self._at(number, path, size)
        if name:
            folder.find(name)

    def _path_readlink(self, number: int, path: int, size: int, *_rest: int) -> None:
        folder, name = self._at(number, path, size)
        if name:
            folder.find(name)
        raise Errno(INVAL)  # nothing is a link

    def _path_remove_directory(self, number: int, path: int, size: int) -> None:
        folder, name = self._at(number, path, size)
        if not name:
            raise Errno(INVAL)
        folder.remove_folder(name)

    def _path_unlink_file(self, number: int, path: int, size: int) -> None:
        folder, name = self._at(number, path, size)
        if not name:
            raise Errno(ISDIR)
        file = folder.remove_file(name)
        if not any(opened.what is file for opened in self._open.values()):
            file.resize(0)

    def _path_rename(self, number: int, path: int, size: int, to: int, new: int, new_size: int) -> None:
        folder, name = self._at(number, path, size)
        target, new_name = self._at(to, new, new_size)
        if not name or not new_name:
            raise Errno(INVAL)
        folder.move(name, target, new_name)


def _type_of(what: File | Folder | Printed) -> int:
    return DIRECTORY if isinstance(what, Folder) else REGULAR


def _stat(what: File | Folder | Printed) -> bytes:
    size = what.size if isinstance(what, File) else 0
    number = 0 if isinstance(what, Printed) else what.number
    return struct.pack("<QQB7xQQQQQ", 1, number, _type_of(what), 1, size, EPOCH_NS, EPOCH_NS, EPOCH_NS)
