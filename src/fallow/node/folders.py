"""Files and folders of this machine to blobs and back. Everything here blocks: call it in a thread.

Trees come from strangers and are written to disk. `wire/trees.py` refuses paths that lead out; here every folder on the
way is opened by itself and never through a link, so that a link which already lies in the target (a worker may have put
it there) leads nowhere either.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fallow.adapters.blobs_files import FULL, measure, opened_folder
from fallow.errors import fail
from fallow.ports import Blobs
from fallow.units import MIB, BlobId
from fallow.wire.blob_id import blob_id_of
from fallow.wire.codec import encode
from fallow.wire.trees import (
    MAX_ENTRIES,
    MAX_TREE_BYTES,
    Tree,
    TreeEntry,
    decode_tree,
    encode_tree,
    is_tree,
    path_problem,
)

_NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP}
_TREE_MARK = encode(Tree(()))[:-1]
_names = itertools.count()


class ImportedTree(NamedTuple):
    """A folder as blobs: the tree's id, the size of its files together, and how many they are."""

    tree: BlobId
    size_bytes: int
    files: int


def import_path(blobs: Blobs, path: Path, owner: str = "") -> ImportedTree:
    """Take a file or a folder into the store, pinned for `owner` if one is given; a file becomes a tree of one. Links
    to files inside the folder are followed. Raises UsageError E2003 for what cannot be read, E1606 for links to folders
    or out of the folder, and devices, E1104 for names that cannot be written everywhere; UnavailableError E1603 when
    there is no room."""
    entries = [_import_file(blobs, name, file, owner) for name, file in _listed(path)]
    tree = blobs.put(encode_tree(entries))
    if owner:
        blobs.pin(tree, owner)
    return ImportedTree(tree, sum(entry.size_bytes for entry in entries), len(entries))


def tree_id(path: Path) -> BlobId:
    """The id of the tree that `import_path` would make of a file or folder, without keeping anything. Raises as that
    does."""
    entries: list[TreeEntry] = []
    for name, file in _listed(path):
        try:
            with file.open("rb") as opened:
                blob, found = measure(opened.fileno())
                executable = bool(os.fstat(opened.fileno()).st_mode & stat.S_IXUSR)
        except OSError as problem:
            raise fail("E2003", f"{file} cannot be read: {problem.strerror}") from problem
        entries.append(TreeEntry(name, blob, found.size_bytes, executable))
    return blob_id_of(encode_tree(entries))


def export_tree(blobs: Blobs, tree: BlobId, path: Path) -> int:
    """Write a tree's files into the folder `path`; -> how many. A new folder appears complete or not at all; in one
    that exists each file does, and files of other names stay. Raises UsageError E1607 when something is in the way,
    PeerFault E1102 when the blob is no tree, UnavailableError E1602 when a blob is not here, E1603 when the disk is
    full."""
    entries = _read_tree(blobs, tree).entries
    with _writing_errors(path):
        if path.is_dir():
            with opened_folder(path) as folder:
                for entry in entries:
                    _copy(blobs, BlobId(entry.blob), folder, entry.path, 0o755 if entry.executable else 0o644)
            return len(entries)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temp:
            new = Path(temp) / "new"
            new.mkdir()
            export_tree(blobs, tree, new)
            new.rename(path)
    return len(entries)


def materialize(blobs: Blobs, part_name: str, blob: BlobId, folder: Path) -> Path:
    """Make an input of a task appear in `folder` under its name, read-only; -> where it is: a file, for a tree a
    folder, for a tree of one file that file. Files are hard links into the store where that is possible, so they cost
    nothing and outlive the blob. Pin the blobs until it returns. Raises as `export_tree` does, and E1102 for a name
    that leads out of the folder."""
    problem = path_problem(part_name)
    if problem:
        raise fail("E1102", f"an input that cannot be written: {problem}")
    with _writing_errors(folder), opened_folder(folder) as root:
        if not _looks_like_tree(blobs, blob):
            _link(blobs, blob, root, part_name, executable=False)
            return folder / part_name
        entries = _read_tree(blobs, blob).entries
        with _parent_of(root, f"{part_name}/-"):
            pass
        for entry in entries:
            _link(blobs, BlobId(entry.blob), root, f"{part_name}/{entry.path}", executable=entry.executable)
    return folder / part_name / entries[0].path if len(entries) == 1 else folder / part_name


def with_files(blobs: Blobs, blob: BlobId) -> tuple[BlobId, ...]:
    """The blob and, where it is a tree, its files, which need not be here. Raises UnavailableError E1602 when the blob
    is not."""
    if not _looks_like_tree(blobs, blob):
        return (blob,)
    return blob, *(BlobId(entry.blob) for entry in _read_tree(blobs, blob).entries)


def remove(folder: Path) -> None:
    """Remove a folder that a worker wrote into; harmless when there is none. What lies in it may be locked, or deeper
    than Python goes: then the system's own programs do it. Raises nothing."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        for words in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            with suppress(OSError):
                subprocess.run([*words, "--", str(folder)], check=False, capture_output=True)


def stored_bytes(path: Path) -> int:
    """The size of a file, or of the files in a folder together."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


# in -------------------------------------------------------------------------------------------------------------------


def _listed(path: Path) -> list[tuple[str, Path]]:
    """The files that a tree of `path` has, by their names in it."""
    try:
        root = path.resolve(strict=True)
        found = [(root.name, root)] if root.is_file() else list(itertools.islice(_files(root, root), MAX_ENTRIES + 1))
    except OSError as problem:
        raise fail("E2003", f"{path} cannot be read: {problem.strerror}") from problem
    if len(found) > MAX_ENTRIES:
        raise fail("E1606", f"{path} holds more than {MAX_ENTRIES} files")
    return found


def _files(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file under `folder` with its path relative to `root`."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        name = path.relative_to(root).as_posix()
        if entry.is_symlink():
            target = path.resolve(strict=True)
            if not target.is_relative_to(root) or not target.is_file():
                raise fail("E1606", f"{path} is a link to a folder, or leads out of {root}")
            yield name, target
        elif entry.is_dir():
            yield from _files(root, path)
        elif entry.is_file():
            yield name, path
        else:
            raise fail("E1606", f"{path} is neither a file nor a folder")


def _import_file(blobs: Blobs, name: str, file: Path, owner: str) -> TreeEntry:
    blob = blobs.put_file(file)
    if owner:
        blobs.pin(blob, owner)
    return TreeEntry(name, blob, blobs.size(blob), bool(file.stat().st_mode & stat.S_IXUSR))


# out ------------------------------------------------------------------------------------------------------------------


def _read_tree(blobs: Blobs, tree: BlobId) -> Tree:
    size_bytes = blobs.size(tree)
    if size_bytes > MAX_TREE_BYTES:
        raise fail("E1102", "a blob that is too large for a tree")
    return decode_tree(blobs.read(tree, 0, size_bytes))


def _looks_like_tree(blobs: Blobs, blob: BlobId) -> bool:
    size_bytes = blobs.size(blob)
    if size_bytes > MAX_TREE_BYTES or blobs.read(blob, 0, len(_TREE_MARK)) != _TREE_MARK:
        return False
    return is_tree(blobs.read(blob, 0, size_bytes))


def _link(blobs: Blobs, blob: BlobId, root: int, path: str, *, executable: bool) -> None:
    """Put a blob at `path` under the open folder `root`, read-only, in place of a file that was there."""
    if executable:  # the store's own file is not, and a link shares its mode
        _copy(blobs, blob, root, path, 0o555)
        return
    source = blobs.path(blob)
    with _parent_of(root, path) as (folder, name):
        if _is_link_to(source, folder, name):
            return
        temp = f".{os.getpid()}.{next(_names)}.fallow"
        try:
            os.link(source, temp, dst_dir_fd=folder, follow_symlinks=False)
            os.rename(temp, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as problem:
            _unlink(folder, temp)
            if problem.errno not in _NO_LINK:
                raise
            _copy(blobs, blob, root, path, 0o444)


def _is_link_to(source: Path, folder: int, name: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(source.stat(), os.stat(name, dir_fd=folder, follow_symlinks=False))
    return False


def _copy(blobs: Blobs, blob: BlobId, root: int, path: str, mode: int) -> None:
    """Write a blob to `path` under the open folder `root`, in place of a file that was there, all at once."""
    with _parent_of(root, path) as (folder, name):
        temp = f".{os.getpid()}.{next(_names)}.fallow"
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            with open(fd, "wb") as file:
                file.writelines(blobs.read(blob, at, MIB) for at in range(0, blobs.size(blob), MIB))
                file.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            os.rename(temp, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _unlink(folder, temp)
            raise


@contextmanager
def _parent_of(root: int, path: str) -> Generator[tuple[int, str]]:
    """The folder that `path` lies in, made if it is missing, as an open file, and the last name of `path`."""
    *folders, name = path.split("/")
    at = os.dup(root)
    try:
        for folder in folders:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o755, dir_fd=at)
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        yield at, name
    finally:
        os.close(at)


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _writing_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise fail("E1603", f"{path} cannot be written: {problem.strerror}") from problem
        raise fail("E1607", f"{path} cannot be written: {problem}") from problem
