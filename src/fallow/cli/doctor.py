"""Check this machine and this home, and say what is missing for what. Changes nothing, spends nothing.

Exit code 0 when nothing is wrong; things that are only absent (a GPU, a node) are said but are not wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from fallow.adapters.exactness import exactness
from fallow.adapters.hardware import gpus
from fallow.adapters.runners import cgroup
from fallow.adapters.runners.process import ProcessRunner
from fallow.cli.output import Output
from fallow.errors import FallowError, fail
from fallow.kinds.registry import KINDS
from fallow.node.config import load_config, load_ticket
from fallow.sdk.client import AsyncFallow
from fallow.sdk.home import resolve_home
from fallow.units import GIB, format_size
from fallow.wire.messages import EXACT

CORE = (
    "iroh",
    "msgspec",
    "coincurve",
    "blake3",
    "cryptography",
    "SQLAlchemy",
    "starlette",
    "pydantic",
    "uvicorn",
    "zeroconf",
    "rich",
)
SMALL_DISK_BYTES = 5 * GIB
DELEGATED = "systemd-run --user --scope -p Delegate=yes fallow up"


class Diagnosis(NamedTuple):
    """`state` is "ok", "note" (absent, and that may be fine) or "wrong"."""

    name: str
    state: str
    text: str


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow doctor`."""
    parser.epilog = "Report bugs with the output of: fallow doctor --json"


def run(args: argparse.Namespace, out: Output) -> int:
    """Print all findings; raise UsageError E2008 when one is wrong."""
    home = resolve_home(args.home)
    found = list(examine(home))
    wrong = [finding for finding in found if finding.state == "wrong"]
    answer = {"home": str(home), "ok": not wrong, "checks": [finding._asdict() for finding in found]}
    marks = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
    out.data(answer, "\n".join(f"{marks[f.state]}  {f.name:<10} {f.text}" for f in found))
    if wrong and not out.as_json:
        raise fail("E2008", f"{len(wrong)} of {len(found)} checks failed.", cause=wrong[0].text)
    return 2 if wrong else 0


def examine(home: Path) -> Iterator[Diagnosis]:
    """All findings, cheapest first."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    yield Diagnosis("python", "ok" if good else "wrong", f"{version} at {sys.executable}")
    yield _packages("core", CORE, required=True)
    for extra in dict.fromkeys(extra for kind in KINDS.values() for extra in kind.extras):
        yield _packages(extra.name, extra.packages, required=False)
    yield from _home(home)
    yield _config(home)
    yield _disk(home)
    yield _sandbox()
    yield _exactness()
    yield _network()
    yield _gpus()
    node, pid = asyncio.run(_node(home))
    yield _limits(pid)
    yield node


def _packages(title: str, names: tuple[str, ...], *, required: bool) -> Diagnosis:
    found: list[str] = []
    missing: list[str] = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if not missing:
        return Diagnosis(title, "ok", ", ".join(found))
    remedy = "fallow" if required else f"'fallow[{title}]'"
    return Diagnosis(title, "wrong" if required else "note", f"missing {', '.join(missing)}; pip install {remedy}")


def _home(home: Path) -> Iterator[Diagnosis]:
    if not home.exists():
        yield Diagnosis("home", "note", f"{home} does not exist yet; fallow up makes it")
        return
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        yield Diagnosis("home", "wrong", f"{home} is not a folder that you can write to")
        return
    loose = home.stat().st_mode & 0o077
    text = f"{home} can be read by others; chmod 700 it" if loose else str(home)
    yield Diagnosis("home", "wrong" if loose else "ok", text)
    keys = home / "keys"
    for key in sorted(keys.iterdir()) if keys.is_dir() else ():
        if key.is_file() and key.stat().st_mode & 0o077:
            yield Diagnosis("keys", "wrong", f"{key} can be read by others; chmod 600 it")


def _config(home: Path) -> Diagnosis:
    try:
        load_config(home)
        ticket = load_ticket(home)
    except FallowError as error:
        return Diagnosis("config", "wrong", f"{error.what} ({error.code})")
    pool = f"pool 0x{ticket.bank_account.hex()}" if ticket is not None else "no pool joined yet"
    return Diagnosis("config", "ok", pool)


def _disk(home: Path) -> Diagnosis:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    few = free < SMALL_DISK_BYTES
    return Diagnosis(
        "disk", "note" if few else "ok", f"{format_size(free)} free{', which is little for models' if few else ''}"
    )


def _sandbox() -> Diagnosis:
    """Whether workers can be shut in, without which no work of strangers is taken. A tenth of a second."""
    try:
        return Diagnosis("sandbox", "ok", f"workers are kept in by {ProcessRunner().guard()}")
    except FallowError as error:
        return Diagnosis("sandbox", "note", f"no stranger's work can be taken: {error.cause}")


def _exactness() -> Diagnosis:
    """Whether this machine computes exactly, which exact work needs. Some seconds, the first time."""
    found = exactness(1)
    good = found == EXACT
    text = "this machine reproduces the golden results" if good else f"no exact work will be offered: {found}"
    return Diagnosis("exact", "ok" if good else "note", text)


def _network() -> Diagnosis:
    """Whether a UDP socket can be opened; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("0.0.0.0", 0))  # noqa: S104 - as a node does
    except OSError as error:
        return Diagnosis("network", "wrong", f"no UDP port can be opened: {error.strerror}")
    return Diagnosis("network", "ok", "UDP ports can be opened")


def _gpus() -> Diagnosis:
    names = ", ".join(gpu.name for gpu in gpus())
    return Diagnosis("gpu", "ok" if names else "note", names or "none found; the CPU is used")


def _limits(pid: int) -> Diagnosis:
    """Whether the kernel bounds each worker's memory, for the node that runs, else for one started as this was."""
    place, why = cgroup.look(pid)
    if place is not None:
        return Diagnosis("limits", "ok", "each worker gets a cgroup of its own, which bounds its memory and processes")
    text = (
        f"each worker's memory is looked at four times a second, and no cgroup bounds it: {why}; {DELEGATED} gives one"
    )
    return Diagnosis("limits", "note", text)


async def _node(home: Path) -> tuple[Diagnosis, int]:
    """And its process, 0 for none."""
    try:
        node = await AsyncFallow(home).node()
    except FallowError as error:
        return Diagnosis("node", "note", error.what), 0
    return Diagnosis("node", "ok", f"running, pid {node.pid}, {', '.join(node.roles)}"), node.pid
