"""The store in memory: what tests may do to it. That it behaves like the real one, the contract suite shows."""

from __future__ import annotations

import pytest

from fallow.errors import UnavailableError
from fallow.sim.blobs import Disk, MemoryBlobs
from fallow.wire.blob_id import CHUNK_BYTES, blob_id_of, chunk_hashes_of


def test_a_disk_outlives_its_store() -> None:
    disk = Disk()
    blob = MemoryBlobs(100, disk).put(b"kept")
    assert MemoryBlobs(100, disk).read(blob, 0, 4) == b"kept"
    assert not MemoryBlobs(100).has(blob)


def test_a_full_disk_takes_nothing_and_drops_the_partial() -> None:
    store = MemoryBlobs(10 * CHUNK_BYTES)
    data = bytes(2 * CHUNK_BYTES)
    kept = store.put(b"kept")
    partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    partial.write(0, data[:CHUNK_BYTES])
    store.disk.full = True
    for attempt in (
        lambda: partial.write(1, data[CHUNK_BYTES:]),
        lambda: store.put(b"x"),
        lambda: store.pin(kept, "a"),
    ):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert caught.value.code == "E1603"
    store.disk.full = False
    partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
    assert len(partial.missing()) == 2


def test_damage_shows_only_where_it_is() -> None:
    store = MemoryBlobs(10 * CHUNK_BYTES)
    blob = store.put(bytes(2 * CHUNK_BYTES))
    store.damage(blob, CHUNK_BYTES)
    assert store.read(blob, 0, CHUNK_BYTES) == bytes(CHUNK_BYTES)
    with pytest.raises(UnavailableError):
        store.read(blob, CHUNK_BYTES, 1)
    assert not store.has(blob)


def test_paths_are_read_only_and_go_with_the_store() -> None:
    store = MemoryBlobs(100)
    path = store.path(store.put(b"kept"))
    assert path.stat().st_mode & 0o777 == 0o444
    del store
    assert not path.exists()
