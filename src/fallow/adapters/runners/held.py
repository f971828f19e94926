"""What worker processes hold: memory, and disk."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

LONGEST_PATH = 3_000
"""Well below what the system takes as a name: of deeper folders nobody can ask what is in them."""


class Stored(NamedTuple):
    """What lies in a folder, how much room is left on its disk, and whether there is more that cannot be looked at."""

    files: int
    size_bytes: int
    free_bytes: int
    hidden: bool = False


def stored(folder: Path, pid: int, most: int) -> Stored:
    """What a worker has written into `folder` and not removed, counting at most `most` files; files that have lost
    their names count for as long as process `pid`, or one that it started, has them open or mapped. Blocks."""
    files, size_bytes, folders, hidden = 0, 0, [str(folder)], False
    while folders and files < most:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        hidden = hidden or len(entry.path) > LONGEST_PATH
                    with suppress(FileNotFoundError):
                        size_bytes += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if files >= most:
                        break
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError:  # locked against us, or too deep
            hidden = True
    size_bytes += sum(_nameless(pid, folder).values())
    return Stored(files, size_bytes, shutil.disk_usage(folder).free if folder.exists() else 0, hidden)


def threads(pid: int) -> int:
    """How many threads a process has; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _nameless(pid: int, folder: Path) -> dict[tuple[int, int], int]:
    """Open files that have no name any more, with their sizes, by device and number. Of those that are only mapped, the
    mapped part is what can be known."""
    found: dict[tuple[int, int], int] = {}
    for one in _family(pid):
        with suppress(OSError):
            for line in _said(f"/proc/{one}/maps").splitlines():
                if line.endswith(b" (deleted)") and str(folder).encode() in line:
                    span, _, offset, device, number = line.split(None, 5)[:5]
                    first, last = (int(side, 16) for side in span.split(b"-"))
                    major, minor = (int(side, 16) for side in device.split(b":"))
                    key = (os.makedev(major, minor), int(number))
                    found[key] = max(found.get(key, 0), int(offset, 16) + last - first)
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{one}/fd"):
                with suppress(OSError):
                    entry = os.stat(f"/proc/{one}/fd/{fd}")
                    if stat.S_ISREG(entry.st_mode) and not entry.st_nlink:
                        found[(entry.st_dev, entry.st_ino)] = 512 * entry.st_blocks
    return found


def held_bytes(pid: int) -> int:
    """The memory that a process and those it started hold for themselves; 0 when it is gone."""
    return sum(_private_bytes(one) for one in _family(pid))


def _family(pid: int) -> list[int]:
    """A process and all that it started. The kernel keeps the list; where it does not, psutil asks every process on the
    machine for its parent, which takes milliseconds, several times a second."""
    found, threads = [pid], f"/proc/{pid}/task"
    try:
        for thread in os.listdir(threads):  # by pathlib this was a fifth of what a serving provider computed
            for child in _said(f"{threads}/{thread}/children").split():
                found += _family(int(child))
    except FileNotFoundError:
        if os.path.exists(threads) and not os.path.exists(f"{threads}/{pid}/children"):
            return _family_by_psutil(pid)
    except (NotADirectoryError, ProcessLookupError, PermissionError):
        pass
    return found if sys.platform == "linux" else _family_by_psutil(pid)


def _said(file: str) -> bytes:
    """What a file of /proc says now."""
    with open(file, "rb", buffering=0) as opened:
        return opened.read()


def _family_by_psutil(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [one.pid for one in (process, *process.children(recursive=True))]
    except psutil.Error:
        return []


def _private_bytes(pid: int) -> int:
    """Without the pages of mapped files, which the kernel can drop: a mapped model is no one's memory."""
    try:
        status = _said(f"/proc/{pid}/status").decode("ascii", "replace")
    except OSError:
        with suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss
        return 0
    rows = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))
    return sum(int(value.split()[0]) * 1024 for value in rows.values())
