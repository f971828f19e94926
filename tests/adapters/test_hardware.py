"""Hardware as this machine has it, and as made-up machines would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pynvml
import pytest

from fallow.adapters import hardware
from fallow.units import GIB
from fallow.wire.codec import decode, encode
from fallow.wire.messages import Hardware


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_measures_this_machine(tmp_path: Path) -> None:
    found = hardware.measure(tmp_path, 2)
    assert decode(Hardware, encode(found)) == found
    assert 0 < found.cpu_millis <= 1000 * (os.cpu_count() or 1)
    assert 0 < found.ram_bytes <= psutil.virtual_memory().total
    assert found.disk_bytes > 0
    assert found.cpu
    assert found.numerics.endswith("/t2")


def test_respects_the_affinity_mask() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from fallow.adapters.hardware import cpu_millis; print(cpu_millis())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1000


def test_respects_the_tightest_cgroup_of_version_2(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": str(GIB),
        },
    )
    assert hardware.cpu_millis(root) == 500
    assert hardware.ram_bytes(root) == GIB


def test_respects_cgroups_of_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/y\n0::/\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "25000",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/y/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1 << 62),
        },
    )
    assert hardware.cpu_millis(root) == 250
    assert hardware.ram_bytes(root) == 2 * GIB


def test_unreadable_or_odd_files_limit_nothing(tmp_path: Path) -> None:
    assert hardware.ram_bytes(tmp_path) == psutil.virtual_memory().total
    write(tmp_path, {"proc/self/cgroup": "0\n\n:::\n", "sys/fs/cgroup/cpu.max": "0 0"})
    assert hardware.cpu_millis(tmp_path) > 0


def test_the_class_of_numerics_differs_where_bits_may(tmp_path: Path) -> None:
    info = (
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: EPYC\nflags\t\t: fma avx2 avx512f\n"
    )
    one = write(tmp_path / "one", {"proc/cpuinfo": info + "\nprocessor : 1\nmodel : 99\n"})
    two = write(tmp_path / "two", {"proc/cpuinfo": info.replace(" avx512f", "")})
    first = hardware.numerics(1, one)
    assert "AuthenticAMD.25.17/avx2+avx512f/" in first
    assert len({first, hardware.numerics(1, two), hardware.numerics(2, one)}) == 3
    assert hardware.cpu_name(one) == "EPYC"


def test_no_driver_means_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert hardware.gpus() == ()


def test_cards_have_short_stable_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total = 80 * GIB

    fakes = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda _: "GPU-1a2b3c4d-0000-1111-2222-333344445555",
        "nvmlDeviceGetName": lambda _: "NVIDIA H100",
        "nvmlDeviceGetMemoryInfo": lambda _: Memory,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    (card,) = hardware.gpus()
    assert (card.card, card.name, card.ram_bytes) == ("GPU-1a2b3c4d", "NVIDIA H100", 80 * GIB)


def test_speeds_are_measured_once_for_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hardware.speeds(tmp_path, 1)
    assert first["generate"] >= first["train"] >= 1
    assert first["echo"] == 5_000
    monkeypatch.setattr(hardware, "_flops", lambda _: 0)
    assert hardware.speeds(tmp_path, 1) == first
    assert hardware.speeds(tmp_path, 2)["train"] == 1
    (tmp_path / "speeds.json").write_text("{")
    assert hardware.speeds(tmp_path, 1)["train"] == 1


def test_a_machine_does_not_offer_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(hardware.can_do(kind) for kind in ("echo", "spin", "train", "generate", "wasm"))
    monkeypatch.setattr(hardware, "find_spec", lambda name: None if name == "torch" else object())
    assert not hardware.can_do("train")
    assert hardware.can_do("generate")


def test_torch_stays_outside() -> None:
    program = "import sys; from fallow.adapters import hardware; hardware.numerics(1); hardware.can_do('train'); "
    program += "raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
