"""Runs another program on a leash: it dies with its parent, yields to everything else, and cannot dump core.

Started as a file, `python -I -S leash.py PARENT NICE DATA_BYTES PROGRAM ARGS...`, so it imports the standard library
only and replaces itself by the program. A small program of its own, because the alternative (`preexec_fn`) runs Python
between fork and exec, which may deadlock in a process with threads.

Defends against: workers that outlive a killed provider, starve their owner's programs, or allocate faster than the
memory watchdog looks (DATA_BYTES bounds private memory; 0 means no bound). Not an address space limit: torch and CUDA
reserve far more of that than they use. Does not defend against programs that try to escape: that is the sandbox's task.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def leash(parent: int, nice: int, data_bytes: int) -> None:
    """Put this process on the leash; what it executes stays on it. Exits at once when `parent` is gone already."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    if os.getppid() != parent:
        sys.exit(1)
    with contextlib.suppress(OSError):
        os.nice(nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if data_bytes:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


if __name__ == "__main__":
    leash(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os.execv(sys.argv[4], sys.argv[4:])  # noqa: S606 - the point of this program
