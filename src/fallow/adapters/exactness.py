"""Whether this machine computes exactly: the golden self-test (`numerics/exact/golden.py`), run in a process of its own
and remembered for as long as processor, libraries and our own code stay the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import msgspec
from blake3 import blake3

import fallow
from fallow.adapters.hardware import MAX_LABEL, numerics
from fallow.kinds.kind import TENSORS
from fallow.wire.messages import EXACT

SELF_TEST = ("-m", "fallow.numerics.exact.golden")
SELF_TEST_TIMEOUT_S = 180
"""Where there is a compiler, a kernel is compiled first."""
MAX_NAMES = 8


def exactness(threads: int, folder: Path | None = None, program: tuple[str, ...] = SELF_TEST) -> str:
    """EXACT where this machine reproduces the golden results, else why it does not, in words. Remembered in `folder`
    (the owner's cache). The first time it takes seconds and blocks: call it in a thread."""
    if any(find_spec(name) is None for name in TENSORS.packages):
        return f"the packages for training are not installed (pip install 'fallow[{TENSORS.name}]')"
    path = (folder or _cache()) / "exact.json"
    key = f"{_sources()}/{_version('numpy')}/{numerics(threads)}/{' '.join(program)}"
    with contextlib.suppress(OSError, msgspec.DecodeError, KeyError):
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        if known["key"] == key:
            return known["found"]
    found = _self_test(threads, program)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode({"key": key, "found": found}))
    return found


def _self_test(threads: int, program: tuple[str, ...]) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            [sys.executable, *program], capture_output=True, env=environment, timeout=SELF_TEST_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"the self-test could not be run ({type(error).__name__})"
    if done.returncode == 0:
        return EXACT
    names = ", ".join(done.stdout.decode("utf-8", "replace").split()[:MAX_NAMES])
    if names:
        return f"other results for {names}"[:MAX_LABEL]
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"the self-test failed: {words[-1] if words else 'it ended without a word'}"[:MAX_LABEL]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fallow"


def _sources() -> str:
    """The hash of our own arithmetic: another version must prove itself anew."""
    folder, state = Path(fallow.__file__).parent / "numerics", blake3(b"fallow sources 1")
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".c", ".h")):
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
