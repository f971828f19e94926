"""Partials on disk: what a crash, a second thread or a late one can do to them."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fallow.adapters import blobs_partial
from fallow.adapters.blobs_disk import DiskBlobs
from fallow.errors import FallowError, PeerFault
from fallow.units import MIB
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of


def stuff(size_bytes: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size_bytes)


DATA = stuff(3 * CHUNK_BYTES + 99)
BLOB = blob_id_of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskBlobs]:
    made = DiskBlobs(tmp_path / "store", 64 * MIB)
    yield made
    made.close()


def test_damage_to_a_partial_is_found_when_it_is_taken_up_again(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path, 64 * MIB)
    partial = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    for index in (0, 1, 3):
        partial.write(index, DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    partial.close()
    with open(tmp_path / "partial" / BLOB.hex(), "r+b") as file:
        file.seek(CHUNK_BYTES + 7)
        file.write(b"?")
        file.seek(0, os.SEEK_END)
        file.write(b"and more than there should be")
    partial = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    assert list(partial.missing()) == [1, 2]
    for index in partial.missing():
        partial.write(index, DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    partial.commit()
    assert store.path(BLOB).read_bytes() == DATA
    store.close()


def test_chunks_may_come_from_several_threads(store: DiskBlobs) -> None:
    data = stuff(12 * MIB, 6)
    partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    pieces = list(enumerate(data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda piece: partial.write(*piece), pieces + pieces[::3]))
    partial.commit()
    assert store.path(blob_id_of(data)).read_bytes() == data


def test_a_late_write_after_close_does_nothing(store: DiskBlobs, tmp_path: Path) -> None:
    partial = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    partial.close()
    with open(tmp_path / "innocent", "w+b") as other:  # most likely has the number that the partial's file had
        partial.write(0, DATA[:CHUNK_BYTES])
        with pytest.raises(PeerFault):
            partial.write(1, b"wrong")
        assert other.read() == b""


def test_two_ends_of_one_partial_do_not_meet(store: DiskBlobs) -> None:
    """A commit that runs on in its thread while the next fetch takes the same blob up must not lose it."""
    first = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    for index in first.missing():
        first.write(index, DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    reached, go_on = threading.Event(), threading.Event()
    take = store.take_partial

    def slow(partial: blobs_partial.DiskPartial, fd: int) -> None:
        reached.set()
        go_on.wait(10)
        take(partial, fd)

    store.take_partial = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(first.commit)
        reached.wait(10)
        first.close()
        store.take_partial = take  # type: ignore[method-assign]
        second = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
        assert not second.missing()
        go_on.set()
        committing.result()
    second.commit()
    assert store.path(BLOB).read_bytes() == DATA


def test_a_big_fetch_is_synced_as_it_comes(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_partial, "SYNC_EVERY_BYTES", 2 * MIB)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd))
    partial = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    write_all_but_the_last(partial.write, [0, 1, 2])
    assert partial._sync is not None
    partial._sync.join()
    assert len(synced) == 1
    partial.close()


def write_all_but_the_last(write: object, indices: Sequence[int]) -> None:
    assert callable(write)
    for index in indices:
        write(index, DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])


def test_a_sync_that_failed_on_the_way_fails_the_fetch(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of lost pages once; whoever asks again is told that all is well."""
    monkeypatch.setattr(blobs_partial, "SYNC_EVERY_BYTES", CHUNK_BYTES)
    failing = iter([OSError(errno.EIO, "lost pages")])

    def fdatasync(_fd: int) -> None:
        if (error := next(failing, None)) is not None:
            raise error

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    partial = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    for index in range(4):
        partial.write(index, DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    with pytest.raises(FallowError) as failed:
        partial.commit()
    assert failed.value.code == "E1004"
    assert not store.has(BLOB)
    again = store.begin(BLOB, len(DATA), chunk_hashes_of(DATA))
    assert list(again.missing()) == [0, 1, 2, 3]
    again.close()
