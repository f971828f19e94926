"""Boxes as the node asks for them: whether this machine can build one, and what a worker must see to start."""

from __future__ import annotations

import functools
import os
import platform
import site
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import fallow
from fallow.adapters.runners import kernel, leash
from fallow.adapters.runners.box import LANDLOCK, NAMESPACES, View
from fallow.ports import READ, WORK, WorkerLimits

KERNELS_VARIABLE = "FALLOW_EXACT_CACHE"
LAYERS = {
    NAMESPACES: "namespaces of its own, Landlock and a filter of system calls",
    LANDLOCK: "Landlock and a filter of system calls; this system lets no user make namespaces",
}
PROBE_S = 20.0


@functools.cache
def strength() -> tuple[str, str]:
    """The layers that a box can have here, and why it cannot have more: ("", why) when there is no box. Tried, by
    starting a program in one."""
    if sys.platform != "linux" or platform.machine() not in kernel.ARCHITECTURES:
        return "", f"it takes Linux on x86-64 or arm64, this is {sys.platform} on {platform.machine()}"
    why = ""
    for layers in (NAMESPACES, LANDLOCK):
        problem = _try(layers)
        if not problem:
            return layers, why
        why = why or problem
    return "", why


def _try(layers: str) -> str:
    with tempfile.TemporaryDirectory(prefix="fallow-box-") as name:
        (Path(name) / WORK).mkdir()
        program = (sys.executable, "-I", "-S", "-c", "pass")
        words = view(Path(name), WorkerLimits(), layers).words()
        rein = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "0", "0", "", words)
        try:
            done = subprocess.run(
                [*rein, *program],
                capture_output=True,
                text=True,
                timeout=PROBE_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-300:] or f"status {done.returncode}"


def view(folder: Path, limits: WorkerLimits, layers: str) -> View:
    """What a worker with its home in `folder` sees. Raises OSError when that would show it the node's own files."""
    reads = (*_of_python(), *limits.reads, kernels_folder())
    home = os.path.realpath(folder)
    for path in reads:
        if Path(home).is_relative_to(os.path.realpath(path)):
            raise OSError(f"the folder of the worker lies in {path}, which it must see")
    shown = tuple(dict.fromkeys(os.path.abspath(path) for path in (*reads, folder / READ)))
    return View(os.path.abspath(folder / WORK), shown, layers, limits.disk_bytes, cards=bool(limits.cards))


def _of_python() -> tuple[Path, ...]:
    """The interpreter, its packages, and ours."""
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        packages.append(site.getusersitepackages())
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")]
    ours = Path(fallow.__file__).resolve().parent.parent
    return (*(Path(path) for path in (sys.prefix, sys.base_prefix, *packages, *libraries)), ours)


def kernels_folder() -> Path:
    """Where this user's node keeps the exact kernels that it compiled, when not beside the package."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fallow" / "exact"
