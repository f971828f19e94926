"""Programs in processes that change themselves for good."""

from __future__ import annotations

import subprocess
import sys


def alone(program: str, *, before: str = "") -> str:
    """What `program` prints, in a process of its own that may import this package."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\nfrom fallow.adapters.runners import kernel\n{before}\n{program}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
