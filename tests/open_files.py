"""What this process holds open: a socket that nobody closed is still there, whether or not it was collected."""

from __future__ import annotations

import os
from pathlib import Path


def open_sockets() -> int:
    """How many sockets this process has."""
    found = (os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir())
    return sum(1 for path in found if path.rpartition("/")[2].startswith("socket:"))
