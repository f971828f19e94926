"""A simulated machine's disk, with the node's own log and blob store on it: a folder that outlives its node, may be
full, may lie, and may see its machine die before and after any write."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.blobs_index import StoredBlob
from fallow.adapters.blobs_partial import DiskPartial
from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError, fail
from fallow.units import BlobId

Written = Callable[[Mapping[str, Sequence[bytes]], Mapping[str, bytes]], None]


def quick_folder() -> str | None:
    """A file system in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the folder in it is made by mkdtemp


def _unseen(_events: Mapping[str, Sequence[bytes]], _cells: Mapping[str, bytes]) -> None:
    return


class Disk:
    """The folder, a temporary one unless it is given, and what can happen to it."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="fallow-sim-disk-", dir=quick_folder()))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.full = False
        """Whether every write to the blob store finds no room."""
        self.flushes = True
        """Whether it does not lie: of one that lies, nothing in the log outlives a crash."""
        self.on_write: Callable[[], None] = lambda: None
        """Called before every write; the machine may die in it."""
        self.written: Written = _unseen
        """Told after each write to the log what was written; the machine may die in it."""
        self._open: dict[str, SimBlobs | SimEventLog] = {}

    @property
    def log(self) -> Path:
        """The log's file."""
        return self.folder / "log.db"

    def opened(self, store: SimBlobs | SimEventLog) -> None:
        """What is open over it, one of a sort."""
        self._open[type(store).__name__] = store

    def room(self) -> None:
        """Called before every write to the blob store."""
        self.on_write()
        if self.full:
            raise fail("E1603", "the disk is full: simulated")

    def crash(self) -> None:
        """What is open over it is dead from now on."""
        for store in self._open.values():
            store.close()
        self._open.clear()
        if not self.flushes:
            for file in self.folder.glob(f"{self.log.name}*"):
                file.unlink()


class SimEventLog(SqliteEventLog):
    """`ports.EventLog` over a `Disk`. To crash and restart, make another one over the same disk."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        super().__init__(self._disk.log)
        self._disk.opened(self)

    def append(self, stream: str, events: Sequence[bytes], cells: Mapping[str, bytes] | None = None) -> int:
        if not events and not cells:
            return super().append(stream, events)
        self._disk.on_write()
        last = super().append(stream, events, cells)
        self._disk.written({stream: events} if events else {}, cells or {})
        return last

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        self._disk.on_write()
        super().put_all(cells)
        self._disk.written({}, cells)

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str] = ()) -> None:
        self._disk.on_write()
        super().cut(stream, upto, cells, gone)
        self._disk.written({}, cells)


class SimPartial(DiskPartial):
    """What comes in meets the same disk."""

    def __init__(self, disk: Disk, *of: Any) -> None:
        self._disk = disk
        super().__init__(*of)

    def write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        try:
            self._disk.room()
        except FallowError:
            self._discard()
            raise
        super().write(index, data)


class SimBlobs(DiskBlobs):
    """`ports.Blobs` over a `Disk`, likewise."""

    def __init__(self, quota_bytes: int, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        super().__init__(self.disk.folder / "blobs", quota_bytes)
        self.disk.opened(self)

    def _partial(self, blob: BlobId, entry: StoredBlob, path: Path) -> SimPartial:
        return SimPartial(self.disk, self, blob, entry, path)

    def pin(self, blob: BlobId, owner: str) -> None:
        self.size(blob)
        self.disk.room()
        super().pin(blob, owner)

    def hand_over(self, blobs: Iterable[BlobId], giver: str, taker: str) -> None:
        self.disk.room()
        super().hand_over(blobs, giver, taker)

    def _keep(self, temp: Path, fd: int, blob: BlobId, entry: StoredBlob) -> None:
        self.disk.room()
        super()._keep(temp, fd, blob, entry)
