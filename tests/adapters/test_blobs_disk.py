"""What only the store on disk can get wrong: full disks, crashes, other processes, files that change."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.errors import UnavailableError, UsageError
from fallow.units import MIB, BlobId
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


def content(root: Path) -> list[Path]:
    """Every file under the store that holds blob content, whole or not."""
    return [path for name in ("blobs", "partial", "temp") for path in (root / name).rglob("*") if path.is_file()]


def run(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A process of its own, since locks and limits belong to processes."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


# a full disk ----------------------------------------------------------------------------------------------------------

FULL = """
    import resource, sys
    from pathlib import Path
    from fallow.adapters.blobs_disk import DiskBlobs
    from fallow.errors import FallowError
    from fallow.wire.blob_id import blob_id_of, chunk_hashes_of

    store = DiskBlobs(Path(sys.argv[1]), 1 << 30)
    small = store.put(b"small")
    data = bytes(5 << 20)
    Path(sys.argv[2]).write_bytes(data)
    # Files of this process cannot grow beyond 3 MiB any more: the kernel stops a write in the middle of a file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))

    def receive():
        partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
        for index in partial.missing():
            partial.write(index, data[index << 20 : (index + 1) << 20])

    for attempt in (lambda: store.put(data), lambda: store.put_file(Path(sys.argv[2])), receive):
        try:
            attempt()
        except FallowError as error:
            print(error.code)
    assert store.read(small, 0, 5) == b"small"
    store.put(b"another small one")
    store.close()
"""


def test_a_write_that_the_disk_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    assert run(FULL, tmp_path / "store", tmp_path / "big").stdout.split() == ["E1603"] * 3
    assert sorted(path.stat().st_size for path in content(tmp_path / "store")) == [5, 17]


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mounted = not subprocess.run([*MOUNT, folder], capture_output=True, check=False).returncode
        if mounted:
            subprocess.run(["umount", folder], check=True)
    return mounted


MOUNT = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
mounting = pytest.mark.skipif(
    not can_mount(), reason="only root may mount a small file system; limits are tested above"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run([*MOUNT, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@mounting
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(small_disk: Path) -> None:
    store = DiskBlobs(small_disk / "store", 1 << 30)
    try:
        kept = store.put(stuff(MIB, 1))
        store.pin(kept, "job")
        (small_disk / "filler").write_bytes(bytes(MIB // 2))
        with pytest.raises(UnavailableError) as caught:
            store.put(stuff(3 * MIB, 2))
        assert caught.value.code == "E1603"
        assert [path.stat().st_size for path in content(small_disk / "store")] == [MIB]
        assert store.read(kept, 0, MIB) == stuff(MIB, 1)
    finally:
        store.close()


def fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        exhaust(fd)
    os.close(fd)


def exhaust(fd: int) -> None:
    while True:
        os.write(fd, bytes(4096))


@mounting
def test_a_disk_that_fills_up_during_a_fetch_ends_it_and_frees_what_it_took(small_disk: Path) -> None:
    store = DiskBlobs(small_disk / "store", 1 << 30)
    try:
        data = stuff(3 * MIB, 3)
        partial = store.begin(blob_id_of(data), len(data), chunk_hashes_of(data))
        partial.write(0, data[:MIB])
        fill(small_disk / "filler")
        with pytest.raises(UnavailableError) as caught:
            partial.write(1, data[MIB : 2 * MIB])
        assert caught.value.code == "E1603"
        assert content(small_disk / "store") == []
        (small_disk / "filler").unlink()
        store.put(data)
    finally:
        store.close()


@mounting
def test_what_nobody_needs_makes_room_on_a_full_disk(small_disk: Path) -> None:
    store = DiskBlobs(small_disk / "store", 1 << 30)
    try:
        cached = store.put(stuff(2 * MIB, 4))
        wanted = store.put(stuff(3 * MIB, 5))
        assert not store.has(cached)
        assert store.read(wanted, 0, 3 * MIB) == stuff(3 * MIB, 5)
    finally:
        store.close()


# crashes --------------------------------------------------------------------------------------------------------------

BUSY = """
    import sys
    from pathlib import Path
    from fallow.adapters.blobs_disk import DiskBlobs

    store = DiskBlobs(Path(sys.argv[1]), 1 << 30)
    number = 0
    while True:
        data = number.to_bytes(4, "big") * 100_000
        blob = store.put(data)
        store.pin(blob, "job")
        print(blob.hex(), number, flush=True)
        number += 1
"""


@pytest.mark.parametrize("after", [1, 7, 23])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(BUSY), str(tmp_path / "store")]
    acknowledged: list[tuple[BlobId, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            blob, number = line.split()
            acknowledged.append((BlobId(bytes.fromhex(blob)), int(number)))
            if len(acknowledged) == after:
                process.send_signal(signal.SIGKILL)
    store = DiskBlobs(tmp_path / "store", 1)  # nothing fits any more, so whatever is not pinned would go
    try:
        with pytest.raises(UnavailableError):
            store.put(b"xx")
        for blob, number in acknowledged:
            assert store.read(blob, 0, 1 << 20) == number.to_bytes(4, "big") * 100_000
        assert list((tmp_path / "store" / "temp").iterdir()) == []
    finally:
        store.close()


def test_a_start_puts_right_what_a_crash_left(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = DiskBlobs(root, 64 * MIB)
    lost, short, kept = store.put(b"lost"), store.put(b"short"), store.put(b"kept")
    store.close()

    def file(blob: BlobId) -> Path:
        return root / "blobs" / blob.hex()[:2] / blob.hex()[2:]

    file(lost).unlink()
    file(short).chmod(0o600)
    file(short).write_bytes(b"sho")
    unknown, wrong = blob_id_of(DATA), blob_id_of(b"never here")
    for blob, data in ((unknown, DATA), (wrong, b"something else")):
        file(blob).parent.mkdir(exist_ok=True)
        file(blob).write_bytes(data)
    (root / "temp" / "0").write_bytes(b"half")
    (root / "partial" / "junk").write_bytes(b"junk")
    (root / "partial" / kept.hex()).write_bytes(b"kep")
    store = DiskBlobs(root, 64 * MIB)
    try:
        assert [store.has(blob) for blob in (lost, short, kept, unknown, wrong)] == [False, False, True, True, False]
        assert store.read(unknown, 0, len(DATA)) == DATA
        assert not file(wrong).exists()
        assert store.used_bytes == len(DATA) + 4
        assert [*(root / "temp").iterdir(), *(root / "partial").iterdir()] == []
    finally:
        store.close()


# other processes and threads ------------------------------------------------------------------------------------------


def test_a_store_belongs_to_one_process(store: DiskBlobs, tmp_path: Path) -> None:
    other = """
        import sys
        from pathlib import Path
        from fallow.adapters.blobs_disk import DiskBlobs
        from fallow.errors import UsageError
        try:
            DiskBlobs(Path(sys.argv[1]), 1)
        except UsageError as error:
            print(error.code)
    """
    assert run(other, tmp_path / "store").stdout.split() == ["E1004"]


def test_a_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "index.sqlite").write_bytes(b"no database at all" * 100)
    for root in (tmp_path / "file", tmp_path / "damaged"):
        with pytest.raises(UsageError) as caught:
            DiskBlobs(root, 1)
        assert caught.value.code == "E1004"


def test_threads_may_put_read_and_collect_at_once(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path, 6 * MIB)
    codes: set[str] = set()

    def work(seed: int) -> None:
        for turn in range(6):
            data = stuff(MIB + 5, (seed + turn) % 4)
            try:
                assert store.read(store.put(data), 0, len(data)) == data
            except UnavailableError as error:  # another thread's blob made it go, or there was no room beside theirs
                codes.add(error.code)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert codes <= {"E1602", "E1603"}
    assert store.used_bytes <= 6 * MIB
    store.close()


# files that change ----------------------------------------------------------------------------------------------------


def test_a_file_that_somebody_wrote_to_is_checked_before_it_is_handed_out(store: DiskBlobs) -> None:
    path = store.path(store.put(DATA))
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.write(b"scribble")
    with pytest.raises(UnavailableError) as caught:
        store.path(BLOB)
    assert caught.value.code == "E1602"
    assert not path.exists()
    assert store.put(DATA) == BLOB
    with open(store.path(BLOB), "ab") as file:
        file.write(b"more")
    with pytest.raises(UnavailableError):
        store.path(BLOB)


def test_a_file_that_vanished_is_not_here(store: DiskBlobs) -> None:
    store.path(store.put(DATA)).unlink()
    with pytest.raises(UnavailableError) as caught:
        store.read(BLOB, 0, 1)
    assert caught.value.code == "E1602"
    assert not store.has(BLOB)


def test_put_file_takes_no_device_and_does_not_hang_on_a_pipe(store: DiskBlobs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError) as caught:
            store.put_file(path)
        assert caught.value.code == "E2003"
