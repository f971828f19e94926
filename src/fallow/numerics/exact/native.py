"""The compiled kernels: found, or built with the machine's C compiler on first use, and checked before they are used.

Without a compiler, with FALLOW_EXACT_NATIVE=0, or when the check fails, torch's own kernels serve: slower, and the same
bits. FALLOW_EXACT_ISA (`portable`, `avx2`, `avx512bw`, `avx512vnni`) caps the instruction set.

The library lies beside the byte code of this package where that may be written, else in the user's cache, under a name
made of the sources, the compiler and its options. Defends against: two builders at once, a build cut short, a library
made by another version, folders that others may write to. Does not defend against: whoever may write to this user's
files.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from blake3 import blake3

from fallow.numerics.exact.bindings import Kernels

SOURCES = Path(__file__).resolve().parent / "csrc"
ISAS = ("portable", "avx2", "avx512bw", "avx512vnni")
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno", "-fvisibility=default")
BUILD_TIMEOUT_S = 300
COMPILER = "exact-compiler.txt"
"""Beside a library: what its compiler said of itself."""

_NOBODY = 65_534
"""Linux's user for all who have no number here."""

_state = threading.Lock()
_kernels: Kernels | None = None
_reason = ""
_caps: list[int] = []


def available() -> bool:
    """Whether the compiled kernels can be used here. The first call may take the seconds of a build."""
    return kernels() is not None


def reason() -> str:
    """Why they cannot; empty where they can, or before anybody asked."""
    return _reason


def kernels() -> Kernels | None:
    """The compiled kernels, checked; or None."""
    global _kernels, _reason
    if _kernels is None and not _reason:
        with _state:
            if _kernels is None and not _reason:
                _kernels, _reason = _find()
    return _kernels


def cap() -> int:
    """The highest instruction set that may be used, as an index of ISAS."""
    if _caps:
        return _caps[-1]
    asked = os.environ.get("FALLOW_EXACT_ISA")
    return _level(asked) if asked else len(ISAS) - 1


@contextmanager
def isa(name: str) -> Iterator[None]:
    """Inside, no instruction set above this one is used. Of the process, as `routes.use`. Raises ValueError for others
    than ISAS."""
    _caps.append(_level(name))
    try:
        yield
    finally:
        _caps.pop()


def _level(name: str) -> int:
    if name not in ISAS:
        raise ValueError(f"no instruction set {name}; there are {', '.join(ISAS)}")
    return ISAS.index(name)


def _find() -> tuple[Kernels | None, str]:
    if os.environ.get("FALLOW_EXACT_NATIVE") == "0":
        return None, "turned off by FALLOW_EXACT_NATIVE"
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if os.name != "posix" or compiler is None:
        return None, "no C compiler"
    try:
        found = Kernels(_built(compiler))
    except (OSError, StopIteration, subprocess.SubprocessError) as problem:
        return None, f"no library could be built: {problem}"
    wrong = [name for index, name in enumerate(ISAS) if not agrees(found, index)]
    return (None, f"wrong results: {wrong}") if wrong else (found, "")


def agrees(kernels: Kernels, cap: int) -> bool:
    """Whether the kernels give what torch's integers give, for one product with every part of a tile and every pair of
    layouts, at the largest magnitudes, and for one gradient."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randint(-8127, 8128, (2, 13, 71), dtype=torch.int16, generator=generator)
    b = torch.randint(-8127, 8128, (2, 37, 71), dtype=torch.int16, generator=generator)
    a[0, :7], b[0, :7] = 8127, -8127
    exact = (a.long() @ b.long().mT).float()
    ones = torch.ones(2, 37)
    for left in (a, a.mT.contiguous().mT):
        for right in (b, b.mT.contiguous().mT):
            if not torch.equal(kernels.product(left, ones[:, :13], right, ones, cap=cap), exact):
                return False
    x, factor = torch.randn(2, 71, 37, generator=generator), torch.exp2(torch.arange(71.0) - 75)
    q, step = kernels.quantise_columns(x, factor, cap)
    other, same = kernels.quantise(x.mT.contiguous(), factor, cap)
    total = torch.zeros(37, 13, dtype=torch.int64)
    kernels.add_gradient(total, x, a.mT.contiguous(), factor.expand(2, 71), cap)
    sums = (q.long() @ a.long().mT).double() * step[..., None].double() * 2.0**40
    grid = sums.clamp(-(2.0**53), 2.0**53).round().long().sum(0)
    return torch.equal(q, other) and torch.equal(step, same) and torch.equal(total, grid)


def _built(compiler: str) -> ctypes.CDLL:
    """The library, built unless it is there. With OpenMP, in torch's own pool of threads, where torch has one to share;
    else for one thread."""
    version = _version(compiler)
    problem: OSError | subprocess.SubprocessError | None = None
    for options in (("-fopenmp",), ()):
        name = f"exact-{_key(version, options)}.so"
        try:
            for folder in _folders():
                path = folder / name
                if path.exists() and _ours(path):
                    return _noted(path, version)
            return _noted(_build(compiler, options, name), version)
        except (OSError, subprocess.SubprocessError) as found:
            problem = found
    raise problem or OSError("nothing was tried")


def _noted(path: Path, version: bytes) -> ctypes.CDLL:
    """The library; beside it, for those who cannot ask, who compiled it."""
    note = path.parent / COMPILER
    with suppress(OSError):
        if not note.exists() or note.read_bytes() != version:
            note.write_bytes(version)
    return ctypes.CDLL(str(path))


def _version(compiler: str) -> bytes:
    """What the compiler says it is; where nothing can be started, as in a box, what it was when it built here."""
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=BUILD_TIMEOUT_S).stdout
    except OSError:
        notes = [folder / COMPILER for folder in _folders()]
        return next(note.read_bytes() for note in notes if note.exists() and _ours(note))


def _key(version: bytes, options: Sequence[str]) -> str:
    state = blake3(b"fallow exact library 1\n")
    for path in sorted(SOURCES.iterdir()):
        state.update(f"{path.name}\n".encode() + path.read_bytes())
    state.update(repr((version, platform.machine(), torch.__version__, FLAGS, options)).encode())
    return state.hexdigest()[:32]


def _folders() -> list[Path]:
    """Where a library may lie: the best place first."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    own = os.environ.get("FALLOW_EXACT_CACHE") or Path(cache) / "fallow" / "exact"
    return [Path(__file__).resolve().parent / "__pycache__", Path(own)]


def _ours(path: Path) -> bool:
    """Whether nobody but this user and root can have written it. Who is root cannot be seen from among a user's own
    processes; there, what is mounted for reading alone was chosen by whoever shut us in."""
    owners = {os.getuid(), 0} | ({_NOBODY} if os.statvfs(path).f_flag & os.ST_RDONLY else set())
    return all(
        found.st_uid in owners and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for found in (path.stat(), path.parent.stat())
    )


def _build(compiler: str, options: Sequence[str], name: str) -> Path:
    """Compile into the first folder that takes it. Raises what the last folder raised."""
    problem: OSError | None = None
    for folder in _folders():
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not _ours(folder):
                raise PermissionError(f"others may write to {folder}")
            with _lock(folder / "exact.lock"):
                if not (folder / name).exists():
                    _compile(compiler, options, folder / name)
            return folder / name
        except OSError as found:
            problem = found
    raise problem or OSError("no folder to build in")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One builder at a time; the others then find what it built."""
    import fcntl

    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _compile(compiler: str, options: Sequence[str], target: Path) -> None:
    """Build aside and move into place, so that nobody loads half a library. The link is made without `-fopenmp`: the
    names of OpenMP are then found in the library that torch has loaded, and not in a second one beside it."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="exact-build-") as folder:
        objects: list[str] = []
        for source in sorted(SOURCES.glob("*.c")):
            objects.append(str(Path(folder) / f"{source.stem}.o"))
            _run([compiler, *FLAGS, *options, "-c", str(source), "-o", objects[-1]])
        finished = Path(folder) / target.name
        _run([compiler, "-shared", "-o", str(finished), *objects])
        finished.chmod(0o755)
        os.replace(finished, target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S)
    if done.returncode:
        raise OSError(f"{' '.join(command[:1])} failed: {done.stderr.strip()[-400:]}")
