"""Where a node lives and how its owner's programs find it. The node itself uses the same two rules."""

from __future__ import annotations

import os
from pathlib import Path

SOCKET_NAME = "api.sock"


def resolve_home(home: str | os.PathLike[str] | None = None) -> Path:
    """The home folder: the argument, else FALLOW_HOME, else `~/.fallow`. Absolute; need not exist."""
    return Path(home or os.environ.get("FALLOW_HOME") or "~/.fallow").expanduser().absolute()


def socket_path(home: Path) -> Path:
    """The Unix socket on which the node of `home` answers its owner."""
    return home / SOCKET_NAME
