"""Each means of shutting in, by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.adapters.runners.inside import alone

from fallow.adapters.runners import kernel

TRY = """
def told(act):
    try:
        return str(act())
    except OSError as error:
        return type(error).__name__
"""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    for name in ("seen", "mine", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "seen", tmp_path / "mine", tmp_path / "hidden"


def test_landlock_lets_through_what_is_named_and_nothing_else(places: tuple[Path, Path, Path]) -> None:
    seen, mine, hidden = map(str, places)
    rules = [(seen, kernel.READ), (mine, kernel.WRITE), ("/nowhere", kernel.READ), (sys.prefix, kernel.READ)]
    before = f"{TRY}\nkernel.give_up_privileges()\nkernel.landlock({rules!r})"
    told = alone(
        f"print(told(lambda: open('{seen}/file').read()), told(lambda: open('{seen}/file', 'w')),"
        f"told(lambda: open('{mine}/file', 'w').write('xy')), told(lambda: open('{hidden}/file').read()),"
        f"told(lambda: os.link('{seen}/file', '{mine}/name')), told(lambda: os.listdir('{hidden}')),"
        f"told(lambda: os.mkfifo('{mine}/pipe')), told(lambda: os.replace('{mine}/file', '{mine}/new')))",
        before=before,
    )
    assert told.split() == [
        "seen",
        "PermissionError",
        "2",
        *["PermissionError"] * 1,
        "OSError",
        *["PermissionError"] * 2,
        "None",
    ]


def test_a_rule_for_a_file_is_for_that_file(places: tuple[Path, Path, Path]) -> None:
    seen, _, hidden = places
    before = f"{TRY}\nkernel.give_up_privileges()\nkernel.landlock([({str(seen / 'file')!r}, kernel.READ)])"
    told = alone(f"print(told(lambda: open('{seen}/file').read()), told(lambda: open('{hidden}/file')))", before=before)
    assert told.split() == ["seen", "PermissionError"]


def test_a_filter_refuses_by_number_and_by_first_argument() -> None:
    number = {"x86_64": 109, "aarch64": 154}[os.uname().machine]  # setpgid
    program = """
print(told(lambda: os.setpgid(0, 0)), told(lambda: os.setpgid(1, 0)), told(lambda: os.getpgid(0) > 0))
"""
    before = f"{TRY}\nkernel.give_up_privileges()\nkernel.filter_calls(kernel.only_with({number}, (0, os.getpid()), 1))"
    assert alone(program, before=before).split() == ["None", "PermissionError", "True"]
    before = f"{TRY}\nkernel.give_up_privileges()\nkernel.filter_calls(kernel.refuse({number}, 13))"
    assert alone(program, before=before).split() == ["PermissionError", "PermissionError", "True"]
    before = f"{TRY}\nkernel.give_up_privileges()\nkernel.filter_calls(kernel.only_with_bit({number}, 4, 1))"
    assert alone("print(told(lambda: os.setpgid(0, 0)), told(lambda: os.setpgid(4, 0)))", before=before).split() == [
        "PermissionError", "ProcessLookupError",
    ]  # fmt: skip


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other processors have no second set of numbers")
def test_calls_by_another_convention_end_the_process() -> None:
    """The 32-bit numbers mean other things, so a filter of 64-bit numbers would let the wrong ones through."""
    program = (
        "import ctypes; from fallow.adapters.runners import kernel; kernel.give_up_privileges();"
        "kernel.filter_calls(kernel.refuse(41, 1)); ctypes.CDLL(None).syscall(0x40000000 + 41, 2, 1, 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert done.returncode == -31  # SIGSYS


def test_the_kernels_no_is_an_oserror() -> None:
    with pytest.raises(OSError, match="mount"):
        kernel.mount("/nowhere", "/nowhere")
    with pytest.raises(OSError, match="umount2"):
        kernel.unmount("/nowhere")
    with pytest.raises(OSError, match="unshare"):
        kernel.unshare(0x1)
    with pytest.raises(OSError, match="syscall"):
        kernel.read_only("/nowhere")
