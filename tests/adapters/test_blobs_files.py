"""File operations of the store: what a failing disk means, and copies that are hashed on the way."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from fallow.adapters.blobs_files import disk_errors, measure, stamp_of, take_hold, write_all
from fallow.errors import FallowError
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E1603"),
        (errno.EDQUOT, "E1603"),
        (errno.EFBIG, "E1603"),
        (errno.EIO, "E1004"),
        (errno.EROFS, "E1004"),
    ],
)
def test_errors_of_the_disk_get_codes(number: int, code: str) -> None:
    with pytest.raises(FallowError) as caught, disk_errors():
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code


def test_errors_of_the_index_get_codes() -> None:
    with pytest.raises(FallowError) as caught, disk_errors():
        sqlite3.connect(":memory:").execute("not SQL")
    assert caught.value.code == "E1004"


def test_errors_that_are_not_the_disks_pass() -> None:
    with pytest.raises(ZeroDivisionError), disk_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_a_copy_is_hashed_on_the_way(tmp_path: Path, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    (tmp_path / "from").write_bytes(data)
    source = os.open(tmp_path / "from", os.O_RDONLY)
    target = os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    blob, entry = measure(source, target)
    assert blob == blob_id_of(data)
    assert entry.size_bytes == size_bytes
    assert entry.chunks == chunk_hashes_of(data)
    assert (tmp_path / "to").read_bytes() == data
    assert measure(source, limit_bytes=size_bytes // 2)[0] == blob_id_of(data[: size_bytes // 2])
    os.close(source)
    os.close(target)


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_a_file_is_hashed_by_several_threads_as_by_one(tmp_path: Path, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    (tmp_path / "from").write_bytes(data)
    source = os.open(tmp_path / "from", os.O_RDONLY)
    assert measure(source, threads=3) == measure(source)
    os.close(source)


def test_a_stamp_changes_when_a_file_is_written_to(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_all(fd, b"first", 0)
    os.utime(fd, ns=(0, 0))
    before = stamp_of(fd)
    assert stamp_of(fd) == before
    write_all(fd, b"other", 0)
    assert stamp_of(fd) != before
    os.close(fd)


def test_a_lock_is_taken_over_when_its_holder_is_gone(tmp_path: Path) -> None:
    os.close(take_hold(tmp_path))
    os.close(take_hold(tmp_path))
