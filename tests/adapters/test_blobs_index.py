"""The index: what it forgets, what it keeps, and in which order blobs may go."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallow.adapters.blobs_index import BlobsIndex, StoredBlob
from fallow.units import BlobId


def name(n: int) -> BlobId:
    return BlobId(bytes([n]) * 32)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[BlobsIndex]:
    made = BlobsIndex(tmp_path / "index.sqlite")
    yield made
    made.close()


def test_entries_come_back_and_go(index: BlobsIndex) -> None:
    index.add(name(1), 5, (b"a" * 32,))
    index.add(name(2), 0, ())
    assert index.get(name(1)) == StoredBlob(5, (b"a" * 32,))
    assert index.get(name(2)) == StoredBlob(0, ())
    assert index.get(name(3)) is None
    assert index.used_bytes == 5
    index.remove(name(1))
    index.remove(name(1))
    assert index.size(name(1)) is None
    assert index.used_bytes == 0
    assert index.ids() == [(name(2), 0)]


def test_the_order_of_use_and_pins_survive_a_restart(tmp_path: Path) -> None:
    index = BlobsIndex(tmp_path / "index.sqlite")
    for n in range(4):
        index.add(name(n), 1, (b"h" * 32,))
    index.touch(name(0))
    index.pin(name(2), "a")
    index.pin(name(2), "b")
    index.unpin_all("a")
    index.close()
    index = BlobsIndex(tmp_path / "index.sqlite")
    assert [blob for blob, _ in index.collectable()] == [name(1), name(3), name(0)]
    index.add(name(9), 1, (b"h" * 32,))
    index.unpin(name(2), "a")
    index.unpin(name(1), "b")
    assert [blob for blob, _ in index.collectable()] == [name(1), name(3), name(0), name(9)]
    index.unpin(name(2), "b")
    assert [blob for blob, _ in index.collectable()] == [name(1), name(2), name(3), name(0), name(9)]
    assert index.used_bytes == 5
    index.close()


def test_pins_outlive_what_they_pin(index: BlobsIndex) -> None:
    index.add(name(1), 1, (b"h" * 32,))
    index.pin(name(1), "a")
    index.remove(name(1))
    index.add(name(1), 1, (b"h" * 32,))
    assert index.collectable() == []


def test_a_change_that_fails_changes_nothing(index: BlobsIndex) -> None:
    index.add(name(1), 7, ())
    with pytest.raises(sqlite3.IntegrityError):
        index.add(name(1), 7, ())
    assert index.used_bytes == 7
    index.add(name(2), 1, ())
    assert index.used_bytes == 8


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        BlobsIndex(tmp_path / "junk")
