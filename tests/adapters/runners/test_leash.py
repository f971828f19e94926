"""What a program on the leash may and may not do."""

from __future__ import annotations

import os
import subprocess
import sys

from fallow.adapters.runners import leash
from fallow.units import GIB

TELL = "import os, resource; print(os.nice(0), *resource.getrlimit(resource.RLIMIT_DATA), *resource.getrlimit(4))"


def run(parent: int, nice: int, data_bytes: int, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", leash.__file__, str(parent), str(nice), str(data_bytes), "", ""]
    return subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )


def test_gives_way_and_is_bounded() -> None:
    mine = os.nice(0)
    told = run(os.getpid(), 5, 2 * GIB, TELL).stdout.split()
    assert told == [str(min(mine + 5, 19)), str(2 * GIB), str(2 * GIB), "0", "0"]


GROUP = """
import contextlib, sys, time
from pathlib import Path
group = Path("/proc/self/autogroup")
for _ in range(40 if len(sys.argv) == 2 else 0):  # asked to make it nice itself
    try:
        group.write_text(sys.argv[1])
        break
    except BlockingIOError:
        time.sleep(0.05)
    except OSError:
        break
with contextlib.suppress(FileNotFoundError):
    print((group.read_text().split() or ["the root group"])[-1])
"""
ALONE = [sys.executable, "-c", GROUP]


def group_of(command: list[str], *, own_session: bool) -> str:
    """How nice the group is that `command` runs in; nothing where Linux has no groups."""
    done = subprocess.run(
        command, start_new_session=own_session, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def test_a_session_of_its_own_gives_way_as_a_whole_and_nobody_elses_does() -> None:
    def on_leash(nice: int) -> list[str]:
        return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(nice), "0", "", "", *ALONE]

    ours = group_of(ALONE, own_session=False)
    assert group_of(on_leash(7), own_session=False) == ours
    for nice in (5, 10, 6):  # some containers allow nobody to do it
        asked = group_of([*ALONE, str(nice)], own_session=True)
        assert group_of(on_leash(nice), own_session=True) == asked
    assert group_of(on_leash(7), own_session=False) == ours


TURN = """
import ctypes, os, struct
number, found = {"x86_64": 315, "aarch64": 275}.get(os.uname().machine), ctypes.create_string_buffer(48)
if number is not None:
    ctypes.CDLL(None).syscall(number, 0, found, 48, 0)
print(os.nice(0), struct.unpack("=IIQiIQQQ", found.raw)[5])
"""


def test_short_turns_are_for_who_asks_and_not_for_its_workers() -> None:
    def told(before: str, command: list[str]) -> str:
        program = (
            f"import os; from fallow.adapters.runners import leash; {before}; os.execv({command[0]!r}, {command!r})"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    bare = [sys.executable, "-c", TURN]
    ask = f"leash.ask_for_turns({leash.SHORT_TURN_NS})"
    usual, short = told("leash.ask_for_turns(0)", bare), told(ask, bare)
    leashed = [sys.executable, "-I", "-S", leash.__file__]
    program = (
        f"import os, subprocess; from fallow.adapters.runners import leash; {ask};"
        f"subprocess.run([*{leashed!r}, str(os.getpid()), '0', '0', '', '', *{bare!r}], check=True)"
    )
    worker = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert worker.stdout.strip() == usual
    assert short.split()[0] == usual.split()[0]
    assert short.split()[1] in (str(leash.SHORT_TURN_NS), usual.split()[1])  # kernels before 6.12 take no notice


def test_cannot_take_more_than_its_bound() -> None:
    done = run(os.getpid(), 0, GIB, f"bytearray({2 * GIB})")
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_does_not_start_when_the_parent_is_gone() -> None:
    done = run(1 << 30, 0, 0, "print('started')")
    assert (done.returncode, done.stdout) == (1, "")


def test_hands_on_arguments_and_status() -> None:
    assert run(os.getpid(), 0, 0, "raise SystemExit(7)").returncode == 7
