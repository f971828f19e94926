"""The calls about files, as a program makes them: what is refused, and that a program's memory is all it can touch."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.wasm_programs import wat
from tests.workloads.test_wasm import Bench

from fallow.kinds.guest import GuestRun
from fallow.units import MIB
from fallow.wire.tasks import Part


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def opening(path: str, how: int, rights: int = 0xFFFF) -> str:
    """The exit status is what path_open answers."""
    return wat(
        f"""(call $proc_exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const {len(path)})
        (i32.const {how}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 32)))""",
        calls="path_open proc_exit",
        data=path,
    )


ATTEMPTS = {
    ("../keys", 0): 76,
    ("/etc/passwd", 0): 76,
    ("in/../../etc/passwd", 0): 76,
    ("etc/passwd", 0): 44,
    ("proc/self/environ", 0): 44,
    ("in/part", 0): 69,  # to write
    ("in/part", 8): 69,  # to cut
    ("in/new", 1): 69,
    ("new", 1): 69,
    ("out/new", 1): 0,
    ("out/new", 5): 0,
    ("out/con", 1): 28,
    ("in/part", 2): 54,
    ("out", 2): 0,
    ("out", 8): 31,
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_a_program_may_open(attempt: tuple[str, int], bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"row")
    run = GuestRun("", files=(Part("in/part", bytes(32), 1),))
    assert bench(opening(*attempt), run, {"in/part": tmp_path / "part"})[0].status == ATTEMPTS[attempt]


def test_an_input_can_be_read_by_its_path(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"row")
    run = GuestRun("", files=(Part("in/part", bytes(32), 1),))
    assert bench(opening("in/part", 0, 2), run, {"in/part": tmp_path / "part"})[0].status == 0


def test_there_are_no_links(bench: Bench) -> None:
    text = wat(
        "(call $proc_exit (call $path_symlink (i32.const 1024) (i32.const 11) (i32.const 3) (i32.const 1024) "
        "(i32.const 11)))",
        calls="path_symlink proc_exit", data="/etc/passwd",
    )  # fmt: skip
    assert bench(text)[0].status == 58


FAULTS = {
    "a place beyond memory": "(call $put (i32.const 1) (i32.const 0x7fff0000) (i32.const 100))",
    "a size beyond memory": "(call $put (i32.const 1) (i32.const 0) (i32.const 0x7fffffff))",
    "a negative place": "(call $put (i32.const 1) (i32.const -8) (i32.const 100))",
    "vectors beyond memory": "(call $fd_write (i32.const 1) (i32.const 65530) (i32.const 2) (i32.const 8))",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_only_the_programs_own_memory_is_touched(fault: str, bench: Bench) -> None:
    value, _ = bench(wat(f"(call $proc_exit {FAULTS[fault]})", calls="proc_exit"), fuel=10_000)
    assert (value.status, value.trap) == (21, None)


def test_too_many_vectors_and_no_such_file(bench: Bench) -> None:
    many = "(call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 8))"
    assert bench(wat(f"(call $proc_exit {many})", calls="proc_exit"))[0].status == 28
    none = "(call $put (i32.const 9) (i32.const 0) (i32.const 1))"
    assert bench(wat(f"(call $proc_exit {none})", calls="proc_exit"))[0].status == 8


def test_a_disk_is_filled_no_further_than_agreed(bench: Bench) -> None:
    body = """(local $e i32)
      (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 8) (i32.const 1)
        (i64.const 0xffff) (i64.const 0) (i32.const 0) (i32.const 32)))
      {}
      (call $proc_exit (local.get $e))"""
    calls = "path_open proc_exit fd_allocate"
    write = """(loop (local.set $e (call $put (i32.load (i32.const 32)) (i32.const 0) (i32.const 60000)))
      (br_if 0 (i32.eqz (local.get $e))))"""
    value, found = bench(wat(body.format(write), calls=calls, data="out/full"), output=1)
    assert value.status == 51
    assert found.files["out/full"].stat().st_size == MIB // 60_000 * 60_000
    grow = "(local.set $e (call $fd_allocate (i32.load (i32.const 32)) (i64.const 0) (i64.const {})))"
    for size in (1 << 40, -1):
        assert bench(wat(body.format(grow.format(size)), calls=calls, data="out/full"), output=1)[0].status == 51


def test_files_without_number_end(bench: Bench) -> None:
    body = """(local $e i32) (local $n i32)
      (loop
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (i32.store8 (i32.const 1028) (i32.add (i32.const 97) (i32.rem_u (local.get $n) (i32.const 26))))
        (i32.store8 (i32.const 1029) (i32.add (i32.const 97)
          (i32.rem_u (i32.div_u (local.get $n) (i32.const 26)) (i32.const 26))))
        (i32.store8 (i32.const 1030) (i32.add (i32.const 97)
          (i32.rem_u (i32.div_u (local.get $n) (i32.const 676)) (i32.const 26))))
        (local.set $e (call $path_create_directory (i32.const 3) (i32.const 1024) (i32.const 8)))
        (br_if 0 (i32.ne (local.get $e) (i32.const 51))))
      (call $proc_exit (local.get $n))"""
    value, found = bench(wat(body, calls="path_create_directory proc_exit", data="out/abcd"), fuel=1_000)
    assert (value.status, found.files) == (4_001, {})
