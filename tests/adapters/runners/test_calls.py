"""The tables of refused system calls, against the kernel's own headers, and that a worker can do its work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.adapters.runners.inside import alone

from fallow.adapters.runners import calls

HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h"))
NUMBER = re.compile(r"#define __NR(?:3264)?_(\w+) (\d+)")
TABLES = [value for name, value in vars(calls).items() if name.isupper() and isinstance(value, str)]
ROWS = [row.split() for table in TABLES for row in table.split(", ")]


@pytest.mark.parametrize("machine", [0, 1], ids=["x86-64", "arm64"])
def test_numbers_are_the_kernels(machine: int) -> None:
    """Calls younger than the headers are passed over; everything is, where there are no headers."""
    text = HEADERS[machine].read_text() if HEADERS[machine].exists() else ""
    known = {name: int(number) for name, number in NUMBER.findall(text)}
    for name, *numbers in ROWS:
        if numbers[machine] != "-" and name in known:
            assert int(numbers[machine]) == known[name], name
    assert all(len(row) == 3 for row in ROWS)
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_what_work_needs_is_let_through() -> None:
    program = """
import threading, tempfile, time, socket, random
found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
with tempfile.NamedTemporaryFile() as f: f.write(b"x"); f.flush(); os.fsync(f.fileno())
a, b = os.pipe(); os.write(b, b"y"); os.read(a, 1); os.kill(os.getpid(), 0); time.sleep(0.001); os.urandom(8)
print(sorted(found), os.sched_getaffinity(0) != set())
"""
    before = "from fallow.adapters.runners import calls\nkernel.give_up_privileges()\ncalls.forbid()"
    assert alone(program, before=before) == "[0, 1, 2, 3, 4, 5, 6, 7] True"
