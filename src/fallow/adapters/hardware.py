"""What this machine is and can do: measured, not declared.

Respects what the machine was given rather than what it has: CPU affinity, cgroup quotas (version 1 and 2), memory
limits, free disk. GPUs come from NVML; without a driver there are none. Nothing here imports torch; versions come from
package metadata and speeds from a short program in a process of its own.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
import pynvml

from fallow.kinds.registry import KINDS, kind_named
from fallow.wire.messages import Gpu, Hardware

MAX_LABEL = 200
BENCH_TIMEOUT_S = 20
_NVML = cast(Any, pynvml)
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
_BENCH = """
import sys, time
try:
    import numpy
    a = numpy.ones((1024, 1024), numpy.float32)
    run = lambda: a @ a
except ImportError:
    import torch
    torch.set_num_threads(int(sys.argv[1]))
    a = torch.ones((1024, 1024))
    run = lambda: a @ a
run()
best = 1e9
end = time.perf_counter() + 0.4
while time.perf_counter() < end:
    start = time.perf_counter()
    run()
    best = min(best, time.perf_counter() - start)
print(int(2 * 1024**3 / best))
"""


def measure(folder: Path, threads: int) -> Hardware:
    """This machine as far as this process may use it; `folder` says which disk counts, `threads` how many CPU threads
    a task gets, which is part of its class of numerics. Takes milliseconds."""
    return Hardware(
        cpu=cpu_name()[:MAX_LABEL],
        cpu_millis=cpu_millis(),
        ram_bytes=ram_bytes(),
        disk_bytes=shutil.disk_usage(folder).free,
        gpus=gpus(),
        numerics=numerics(threads),
    )


def cpu_millis(root: Path = Path("/")) -> int:
    """Thousandths of logical CPUs: what the affinity mask and every cgroup above this process leave."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_v2_quota(folder) for folder in _cgroups(root, "")]
    quotas += [_v1_quota(folder) for folder in _cgroups(root, "cpu")]
    return int(min([allowed, *(quota for quota in quotas if quota)]) * 1000)


def ram_bytes(root: Path = Path("/")) -> int:
    """The memory of the machine or of the tightest cgroup above this process."""
    limits = [_number(folder / "memory.max") for folder in _cgroups(root, "")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _cgroups(root, "memory")]
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit)])


def cpu_name(root: Path = Path("/")) -> str:
    """What its maker calls the processor."""
    return _cpuinfo(root).get("model name", "") or platform.processor() or platform.machine()


def gpus() -> tuple[Gpu, ...]:
    """The cards that NVML sees, by ids that CUDA_VISIBLE_DEVICES takes and that stay the same over restarts; none where
    there is no driver."""
    found = list[Gpu]()
    with suppress(pynvml.NVMLError), cards() as handles:
        found += [_gpu(handle) for handle in handles]
    return tuple(found)


@contextmanager
def cards() -> Generator[list[object]]:
    """The handles of all cards, for as long as NVML is open. Raises NVMLError where there is no driver."""
    _NVML.nvmlInit()
    try:
        yield [_NVML.nvmlDeviceGetHandleByIndex(index) for index in range(_NVML.nvmlDeviceGetCount())]
    finally:
        _NVML.nvmlShutdown()


def numerics(threads: int, root: Path = Path("/")) -> str:
    """The class of machines that give the same bits for the same fp32 work: processor family, the instruction sets that
    libraries choose their kernels by, the libraries' versions, and the number of threads (it decides how sums are
    split)."""
    info = _cpuinfo(root)
    family = f"{info.get('vendor_id', platform.machine())}.{info.get('cpu family', '')}.{info.get('model', '')}"
    flags = set((info.get("flags", "") or info.get("Features", "")).split())
    isa = "+".join(name for name in _ISA if name in flags)
    libraries = "/".join(f"{name}{_version(name)}" for name in ("torch", "transformers"))
    return f"{platform.machine()}/{family}/{isa}/{libraries}/t{threads}"[:MAX_LABEL]


def can_do(kind: str) -> bool:
    """Whether the packages that this kind of work needs are installed. Raises UsageError E2001 for an unknown kind."""
    extras = kind_named(kind).extras
    return not extras or any(all(find_spec(name) is not None for name in extra.packages) for extra in extras)


def speeds(folder: Path, threads: int) -> dict[str, int]:
    """Units per second by kind of work, remembered in `folder` for as long as the machine stays of its class. The first
    time it takes about a second and blocks: call it in a thread."""
    path, name = folder / "speeds.json", numerics(threads)
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, int | str])
        if known.pop("class", "") == name and known.keys() == KINDS.keys():
            return {kind: speed for kind, speed in known.items() if isinstance(speed, int)}
    except (OSError, msgspec.DecodeError):
        pass
    flops = _flops(threads)
    found = {kind.name: kind.speed(flops) for kind in KINDS.values()}
    path.write_bytes(msgspec.json.encode(found | {"class": name}))
    return found


def _flops(threads: int) -> int:
    """Measured on a square product in single precision; 0 when it cannot be measured."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _BENCH, str(threads)],
            capture_output=True, env=environment, timeout=BENCH_TIMEOUT_S, check=True,
        )  # fmt: skip
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _gpu(handle: object) -> Gpu:
    return Gpu(
        card=str(_NVML.nvmlDeviceGetUUID(handle))[:12],
        name=str(_NVML.nvmlDeviceGetName(handle))[:MAX_LABEL],
        ram_bytes=int(_NVML.nvmlDeviceGetMemoryInfo(handle).total),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's fields."""
    try:
        text = (root / "proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return {}
    rows = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in rows}


def _cgroups(root: Path, controller: str) -> list[Path]:
    """The folders of this process's cgroup and all above it; `controller` is "" for version 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    mount = root / "sys/fs/cgroup" / controller
    for line in lines:
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if controller in names.split(","):
            inner = Path(path.lstrip("/"))
            return [mount / inner, *(mount / parent for parent in inner.parents)]
    return []


def _v2_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # absent, or "max"
        return None


def _v1_quota(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _number(path: Path) -> int | None:
    """A positive number in a file; None for none, "max" or no file."""
    try:
        value = int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return value if 0 < value < math.inf else None
