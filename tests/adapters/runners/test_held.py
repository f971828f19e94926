from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from fallow.adapters.runners.held import LONGEST_PATH, held_bytes, stored, threads
from fallow.units import MIB


def test_memory_of_a_process_that_is_gone_is_none() -> None:
    assert held_bytes(1 << 30) == 0
    assert held_bytes(os.getpid()) > MIB


def test_files_folders_and_what_has_lost_its_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(os.urandom(2 * MIB))
    found = stored(tmp_path, os.getpid(), 100)
    assert found.files == 3
    assert 2 * MIB <= found.size_bytes < 3 * MIB
    assert found.free_bytes > 0
    with (tmp_path / "d").open("wb+") as opened, (tmp_path / "e").open("wb+") as closed:
        opened.write(os.urandom(MIB))
        closed.write(os.urandom(MIB))
        opened.flush()
        closed.flush()
        (tmp_path / "d").unlink()
        with mmap.mmap(closed.fileno(), MIB) as mapped:
            closed.close()
            (tmp_path / "e").unlink()
            assert mapped[0] >= 0
            assert 4 * MIB <= stored(tmp_path, os.getpid(), 100).size_bytes < 5 * MIB
    assert stored(tmp_path, os.getpid(), 100).size_bytes < 3 * MIB


def test_holes_take_no_room_and_counting_ends(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    for number in range(20):
        (tmp_path / f"{number}").touch()
    assert stored(tmp_path, os.getpid(), 10).files == 10
    assert stored(tmp_path, os.getpid(), 100).size_bytes < MIB
    assert stored(tmp_path / "nowhere", os.getpid(), 10) == (0, 0, 0, False)


def test_what_cannot_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    assert not stored(tmp_path, os.getpid(), 10).hidden
    scan = os.scandir

    def locked(path: str) -> object:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert stored(tmp_path, os.getpid(), 10).hidden
    monkeypatch.undo()
    deep = tmp_path
    while len(str(deep)) <= LONGEST_PATH:
        deep = deep / ("d" * 200)
        deep.mkdir()
    assert stored(tmp_path, os.getpid(), 100).hidden


def test_threads_are_counted() -> None:
    assert threads(os.getpid()) >= 1
    assert threads(1 << 30) == 0
