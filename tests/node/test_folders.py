"""Files to blobs and back: nothing gets in that should not, nothing is written outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.errors import FallowError, PeerFault, UnavailableError, UsageError
from fallow.node import folders
from fallow.node.folders import export_tree, import_path, materialize, remove
from fallow.units import MIB, BlobId
from fallow.wire.codec import encode
from fallow.wire.trees import Tree, TreeEntry, decode_tree


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[DiskBlobs]:
    made = DiskBlobs(tmp_path / "store", 64 * MIB)
    yield made
    made.close()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 3_000_000, "weights/deep/er/b.bin": b"", "ünïcode": b"x"}


# in -------------------------------------------------------------------------------------------------------------------


def test_a_folder_goes_in_and_comes_out(blobs: DiskBlobs, tmp_path: Path) -> None:
    source = write(tmp_path / "in", FILES)
    (source / "empty").mkdir()
    (source / "run.sh").write_bytes(b"#!")
    (source / "run.sh").chmod(0o755)
    imported = import_path(blobs, source, "job")
    assert (imported.size_bytes, imported.files) == (sum(map(len, FILES.values())) + 2, len(FILES) + 1)
    assert export_tree(blobs, imported.tree, tmp_path / "new" / "out") == imported.files
    assert read(tmp_path / "new" / "out") == FILES | {"run.sh": b"#!"}
    assert os.access(tmp_path / "new" / "out" / "run.sh", os.X_OK)
    assert (tmp_path / "new" / "out" / "config.json").stat().st_mode & 0o777 == 0o644
    assert import_path(blobs, tmp_path / "new" / "out").tree == imported.tree


def test_a_file_becomes_a_tree_of_one(blobs: DiskBlobs, tmp_path: Path) -> None:
    write(tmp_path, {"data.txt": b"text"})
    imported = import_path(blobs, tmp_path / "data.txt")
    assert (imported.size_bytes, imported.files) == (4, 1)
    tree = decode_tree(blobs.read(imported.tree, 0, MIB))
    assert [entry.path for entry in tree.entries] == ["data.txt"]


def test_an_empty_folder_is_an_empty_tree(blobs: DiskBlobs, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    imported = import_path(blobs, tmp_path / "in")
    assert imported.files == 0
    assert export_tree(blobs, imported.tree, tmp_path / "out") == 0
    assert (tmp_path / "out").is_dir()


def test_everything_is_pinned_for_the_owner(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path / "store", 1_000_000)
    imported = import_path(store, write(tmp_path / "in", {"a": b"a" * 400_000, "b": b"b" * 400_000}), "job")
    with pytest.raises(UnavailableError):
        store.put(b"c" * 300_000)
    store.unpin_all("job")
    store.put(b"c" * 300_000)
    assert imported.files == 2
    store.close()


def test_links_inside_are_followed_and_others_refused(blobs: DiskBlobs, tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"real": b"real", "sub/file": b"file"})
    write(tmp_path, {"secret": b"secret"})
    (root / "alias").symlink_to("sub/file")
    (tmp_path / "entrance").symlink_to(root)
    imported = import_path(blobs, tmp_path / "entrance")
    export_tree(blobs, imported.tree, tmp_path / "out")
    assert read(tmp_path / "out") == {"real": b"real", "sub/file": b"file", "alias": b"file"}
    for target in (tmp_path / "secret", "../secret", "/dev/zero", "sub", ".", ".."):
        (root / "bad").symlink_to(target)
        with pytest.raises(UsageError) as caught:
            import_path(blobs, root)
        assert caught.value.code == "E1606"
        (root / "bad").unlink()


def test_devices_missing_paths_and_odd_names_are_refused(blobs: DiskBlobs, tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"real": b"real"})
    cases: list[tuple[Path, str]] = [(tmp_path / "missing", "E2003"), (Path("/dev/null"), "E2003")]
    for path, code in cases:
        with pytest.raises(UsageError) as caught:
            import_path(blobs, path)
        assert caught.value.code == code
    os.mkfifo(root / "pipe")
    with pytest.raises(UsageError) as caught:
        import_path(blobs, root)
    assert caught.value.code == "E1606"
    (root / "pipe").unlink()
    (root / "dangling").symlink_to("nowhere")
    with pytest.raises(UsageError) as caught:
        import_path(blobs, root)
    assert caught.value.code == "E2003"
    (root / "dangling").unlink()
    write(root, {"a:b": b"?"})
    with pytest.raises(UsageError) as caught:
        import_path(blobs, root)
    assert caught.value.code == "E1104"


def test_a_folder_without_end_is_refused(blobs: DiskBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 3)
    with pytest.raises(UsageError) as caught:
        import_path(blobs, write(tmp_path / "in", {str(n): b"" for n in range(4)}))
    assert caught.value.code == "E1606"


# out ------------------------------------------------------------------------------------------------------------------


def test_an_existing_folder_keeps_its_other_files(blobs: DiskBlobs, tmp_path: Path) -> None:
    imported = import_path(blobs, write(tmp_path / "in", FILES))
    out = write(tmp_path / "out", {"mine": b"mine", "config.json": b"old", "weights/mine": b"mine"})
    export_tree(blobs, imported.tree, out)
    assert read(out) == FILES | {"mine": b"mine", "weights/mine": b"mine"}


@pytest.mark.parametrize("way", ["export", "materialize"])
def test_links_in_the_target_lead_nowhere(blobs: DiskBlobs, tmp_path: Path, way: str) -> None:
    imported = import_path(blobs, write(tmp_path / "in", FILES))
    outside = write(tmp_path / "outside", {"config.json": b"precious"})
    root = tmp_path / "out"
    target = root / "part" if way == "materialize" else root
    target.mkdir(parents=True)

    def attempt() -> None:
        if way == "export":
            export_tree(blobs, imported.tree, target)
        else:
            materialize(blobs, "part", imported.tree, root)

    (target / "config.json").symlink_to(outside / "config.json")
    attempt()  # a link in the place of a file is replaced, not followed
    assert not (target / "config.json").is_symlink()
    for name in ("weights", "weights/deep"):
        for path in sorted(target.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).symlink_to(outside, target_is_directory=True)
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.code == "E1607"
        (target / name).unlink()
    assert read(outside) == {"config.json": b"precious"}


def test_what_is_in_the_way_stays(blobs: DiskBlobs, tmp_path: Path) -> None:
    imported = import_path(blobs, write(tmp_path / "in", {"a": b"a", "b/c": b"c"}))
    for name in ("file", "folder/a/x", "other/b"):
        write(tmp_path, {name: b"mine"})
    for target in ("file", "folder", "other"):
        with pytest.raises(UsageError) as caught:
            export_tree(blobs, imported.tree, tmp_path / target)
        assert caught.value.code == "E1607"
    for name in ("file", "folder/a/x", "other/b"):
        assert (tmp_path / name).read_bytes() == b"mine"


def test_a_new_folder_appears_complete_or_not_at_all(blobs: DiskBlobs, tmp_path: Path) -> None:
    imported = import_path(blobs, write(tmp_path / "in", {"a": b"a", "b": b"b" * 2 * MIB}))
    last = decode_tree(blobs.read(imported.tree, 0, MIB)).entries[-1]
    blobs.path(BlobId(last.blob)).unlink()
    with pytest.raises(UnavailableError) as caught:
        export_tree(blobs, imported.tree, tmp_path / "out" / "new")
    assert caught.value.code == "E1602"
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "old").mkdir()
    with pytest.raises(UnavailableError):
        export_tree(blobs, imported.tree, tmp_path / "old")
    assert read(tmp_path / "old") == {"a": b"a"}


BAD_PATHS = ["../x", "/etc/x", "a/../../x", "a//b", ".", "..", "a/.", "con", "a\\b", "C:x", "a\0b", ""]


@given(st.sampled_from(BAD_PATHS) | st.text(max_size=20), st.booleans())
@settings(max_examples=60)
def test_no_tree_writes_outside(stage: Path, store: DiskBlobs, name: str, through_tree: bool) -> None:
    data = store.put(b"evil")
    out = stage / "out"
    before = read(stage)
    try:
        if through_tree:
            tree = store.put(encode(Tree((TreeEntry(name, data, 4),))) if name else b"")
            export_tree(store, tree, out)
            written = out / name
        else:
            written = materialize(store, name, data, out)
        assert written.resolve().is_relative_to(out.resolve())
        written.unlink()
    except FallowError as error:
        assert isinstance(error, (PeerFault, UsageError)) and error.code in ("E1102", "E1607")  # noqa: PT017
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert read(stage) == before


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stage")
    (root / "out").mkdir()
    return write(root, {"outside": b"precious"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskBlobs]:
    with closing(DiskBlobs(tmp_path_factory.mktemp("store"), MIB)) as opened:
        yield opened


def test_what_is_no_tree_is_refused(blobs: DiskBlobs, tmp_path: Path) -> None:
    for data in (b"", b"no tree", b"\x92\xa4tree\x91", os.urandom(100)):
        with pytest.raises(PeerFault) as caught:
            export_tree(blobs, blobs.put(data), tmp_path / "out")
        assert caught.value.code == "E1102"
    with pytest.raises(UnavailableError):
        export_tree(blobs, BlobId(bytes(32)), tmp_path / "out")


# inputs of tasks ------------------------------------------------------------------------------------------------------


def test_an_input_is_a_read_only_link_into_the_store(blobs: DiskBlobs, tmp_path: Path) -> None:
    blob = blobs.put(b"update")
    (tmp_path / "task").mkdir()
    path = materialize(blobs, "update/00ff", blob, tmp_path / "task")
    for again in (path, materialize(blobs, "update/00ff", blob, tmp_path / "task")):  # as after a restart
        assert again == tmp_path / "task" / "update" / "00ff"
        assert path.read_bytes() == b"update"
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert path.samefile(blobs.path(blob))
    (path.parent / "mine").mkdir()
    with pytest.raises(UsageError):
        materialize(blobs, "update/mine", blob, tmp_path / "task")
    assert sorted(found.name for found in path.parent.iterdir()) == ["00ff", "mine"]


def test_a_tree_becomes_a_folder_and_a_tree_of_one_that_file(blobs: DiskBlobs, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    imported = import_path(blobs, write(tmp_path / "in", FILES))
    assert materialize(blobs, "model", imported.tree, tmp_path / "task") == tmp_path / "task" / "model"
    assert read(tmp_path / "task" / "model") == FILES
    single = import_path(blobs, tmp_path / "in" / "config.json")
    path = materialize(blobs, "data", single.tree, tmp_path / "task")
    assert path == tmp_path / "task" / "data" / "config.json"
    empty = blobs.put(encode(Tree(())))
    assert list(materialize(blobs, "nothing", empty, tmp_path / "task").iterdir()) == []


def test_what_only_begins_like_a_tree_is_a_file(blobs: DiskBlobs, tmp_path: Path) -> None:
    for number, data in enumerate((b"\x92\xa4tree", b"\x92\xa4tree\x91\xff", b"")):
        path = materialize(blobs, f"part{number}", blobs.put(data), tmp_path)
        assert path.read_bytes() == data


def test_a_program_is_copied_so_that_its_mode_is_its_own(blobs: DiskBlobs, tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"run": b"#!", "plain": b"#!"})
    (root / "run").chmod(0o755)
    (tmp_path / "task").mkdir()
    folder = materialize(blobs, "tool", import_path(blobs, root).tree, tmp_path / "task")
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o555
    assert stat.S_IMODE((folder / "plain").stat().st_mode) == 0o444


def test_where_links_do_not_work_inputs_are_copied(
    blobs: DiskBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", other_disk)
    blob = blobs.put(b"x" * (2 * MIB + 1))
    path = materialize(blobs, "part", blob, tmp_path)
    assert path.read_bytes() == b"x" * (2 * MIB + 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not path.samefile(blobs.path(blob))


def test_a_missing_blob_or_folder_is_a_coded_error(blobs: DiskBlobs, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        materialize(blobs, "part", BlobId(bytes(32)), tmp_path)
    assert caught.value.code == "E1602"
    with pytest.raises(UsageError) as usage:
        materialize(blobs, "part", blobs.put(b"x"), tmp_path / "missing")
    assert usage.value.code == "E1607"


def test_what_lies_deeper_than_python_goes_is_removed(tmp_path: Path) -> None:
    """And what cannot be removed at all ends nobody."""
    remove(tmp_path / "none")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (tmp_path / "d" / "locked").mkdir(mode=0o300)
    remove(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
    remove(Path("/proc/self/fdinfo"))
    assert Path("/proc/self/fdinfo").exists()
