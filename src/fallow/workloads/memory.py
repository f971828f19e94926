"""A worker's own bound on its memory: an allocation beyond the lease fails as an error of the task, which the provider
is told in words, and the worker lives on. From outside it is watched all the same, and killed when it holds more.

Defends against: tasks whose model or batch is larger than was leased. Does not defend against code that raises its own
limit again: the provider set a hard one before the worker began.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from fallow.units import MIB

RAM_VARIABLE = "FALLOW_RAM_BYTES"
SLACK_BYTES = 256 * MIB
"""For memory that is mapped and never touched: stacks of threads, and files that libraries map privately."""
_WORDS = ("out of memory", "not enough memory", "allocate memory", "bad_alloc")


def bound_memory(ram_bytes: int) -> None:
    """Let this process take private memory until it holds `ram_bytes`, counted from now; 0 for no bound. To be called
    once its libraries are loaded. Where the system does not tell what is held, nothing changes."""
    mapped, held = _own_bytes()
    if not ram_bytes or not mapped:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = mapped + max(ram_bytes - held, 0) + SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def leased_ram_bytes() -> int:
    """What the provider gave this worker; 0 when it gave no bound."""
    return int(os.environ.get(RAM_VARIABLE, "0"))


def memory_is_out(error: Exception) -> bool:
    """Whether `error` says that there was no memory. Tensor libraries have no type for that on a CPU, only words."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)
    )


def _own_bytes() -> tuple[int, int]:
    """Private memory that is mapped, and that is held; zeros where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0, 0
    rows = dict(line.split(":", 1) for line in lines if line.startswith(("VmData", "RssAnon")))
    return tuple(1024 * int(rows.get(name, "0").split()[0]) for name in ("VmData", "RssAnon"))  # pyright: ignore[reportReturnType]
