"""The files of a program: nothing leads out, nothing is more than was agreed, nothing differs between machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError
from fallow.kinds.wasm.tasks import MAX_FILES
from fallow.workloads.wasm_files import (
    EXIST,
    INVAL,
    ISDIR,
    NAMETOOLONG,
    NOENT,
    NOSPC,
    NOTCAPABLE,
    NOTDIR,
    NOTEMPTY,
    ROFS,
    Errno,
    File,
    Folder,
    Room,
    resolve,
    tree,
    written,
)


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.csv").write_bytes(b"b")
    (tmp_path / "set" / "a.csv").write_bytes(b"aa")
    (tmp_path / "one").write_bytes(b"input")
    return tree({"in/one": tmp_path / "one", "in/set": tmp_path / "set"}, Room(1_000))


def refused(number: int, act: object, *args: object) -> None:
    with pytest.raises(Errno) as found:
        act(*args)  # type: ignore[operator]
    assert found.value.number == number


def test_inputs_are_there_to_read(root: Folder) -> None:
    folder, name = resolve(root, "in/set/../one", root)
    found = folder.find(name)
    assert isinstance(found, File)
    assert (found.read(0, 100), found.read(3, 1), found.read(9, 5), found.size) == (b"input", b"u", b"", 5)
    assert list(root.folder("in").folder("set").entries) == ["a.csv", "b.csv"]
    refused(ROFS, found.write, 0, b"x")
    refused(ROFS, found.resize, 0)
    refused(ROFS, folder.make_file, "new")
    refused(ROFS, folder.remove_file, "one")
    refused(ROFS, root.make_folder, "new")
    refused(ISDIR, folder.remove_file, "set")


OUT = ("..", "../etc/passwd", "in/../../etc/passwd", "/etc/passwd", "in/../..", "./../x")


@pytest.mark.parametrize("path", OUT)
def test_no_path_leads_out(root: Folder, path: str) -> None:
    refused(NOTCAPABLE, resolve, root, path, root)


@given(st.text(alphabet="./ainout~\\", max_size=40))
def test_whatever_the_path_it_ends_inside(path: str) -> None:
    root = tree({}, Room(10))
    try:
        folder, name = resolve(root, path, root)
    except Errno:
        return
    inside, waiting = [root], [root]
    while waiting:
        inside += (new := [one for one in waiting.pop().entries.values() if isinstance(one, Folder)])
        waiting += new
    assert any(folder is one for one in inside)
    assert "/" not in name
    assert name not in (".", "..")


def test_a_path_through_a_file_or_nothing_ends(root: Folder) -> None:
    refused(NOTDIR, resolve, root, "in/one/x", root)
    refused(NOENT, resolve, root, "in/no/x", root)
    refused(NAMETOOLONG, resolve, root, "x" * 256, root)


def test_what_is_written_is_bounded_in_bytes_and_in_files() -> None:
    out = tree({}, Room(100)).folder("out")
    file = out.make_file("a")
    file.write(10, b"x" * 10)
    assert file.read(0, 99) == bytes(10) + b"x" * 10
    refused(NOSPC, file.resize, 1 << 60)
    refused(NOSPC, file.write, 1 << 60, b"x")
    refused(NOSPC, out.make_file("b").write, 0, b"x" * 81)
    file.resize(0)
    out.make_file("c").write(0, b"x" * 100)
    assert out.remove_file("a") is file
    for number in range(MAX_FILES - 3):
        out.make_folder(f"d{number}")
        out.remove_folder(f"d{number}")
    refused(NOSPC, out.make_file, "more")


@pytest.mark.parametrize("name", ["é", "a:b", "a\\b", "CON", "a.", "tab\t", "x" * 200])
def test_only_names_that_mean_the_same_everywhere_come_back(name: str) -> None:
    out = tree({}, Room(100)).folder("out")
    with pytest.raises(Errno) as found:
        out.make_file(name)
    assert found.value.number in (INVAL, NAMETOOLONG)


def test_folders_files_and_their_removal() -> None:
    root = tree({}, Room(100))
    out = root.folder("out")
    out.make_folder("sub")
    refused(EXIST, out.make_folder, "sub")
    sub = out.folder("sub")
    sub.make_file("f").write(0, b"1")
    refused(NOTEMPTY, out.remove_folder, "sub")
    refused(NOTDIR, sub.remove_folder, "f")
    sub.move("f", out, "g")
    refused(NOENT, sub.find, "f")
    refused(ISDIR, out.move, "g", out, "sub")
    root.folder("tmp").make_file("scratch").write(0, b"2")
    assert [(name, file.read(0, 9)) for name, file in written(root)] == [("out/g", b"1")]
    refused(ROFS, out.move, "g", root, "g")


def test_two_inputs_that_get_in_each_others_way_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    with pytest.raises(FallowError, match="lies in a folder of that name"):
        tree({"in/a": tmp_path / "one", "in/a/b": tmp_path / "one"}, Room(1))
