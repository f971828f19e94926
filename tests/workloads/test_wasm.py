"""Runs of programs: what they are given, what they give, and that nothing of it depends on the machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import wasmtime
from tests.wasm_programs import CAT, EXIT_3, FOREVER, HELLO, WRITE_FILE, wasm, wat

from fallow.errors import FallowError, fail
from fallow.kinds.guest import GuestRun
from fallow.kinds.registry import kind_named
from fallow.kinds.wasm.kind import GUEST, needed_bytes, read_task
from fallow.kinds.wasm.tasks import FUEL_A_UNIT, WasmValue
from fallow.units import MIB
from fallow.wire.codec import decode, encode
from fallow.wire.tasks import Part, TaskSpec
from fallow.workloads import wasm as program
from fallow.workloads import wasm_engine
from fallow.workloads.task import TaskResult, TaskRun

KIND = kind_named("wasm")
PLAIN = GuestRun("")


class Bench:
    """Runs programs in this process, which is no worker's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.logs = folder, 0, list[str]()
        (folder / "work").mkdir(exist_ok=True)

    def spec(self, text: str, run: GuestRun, settings: Mapping[str, int], seed: int) -> tuple[TaskSpec, Path]:
        path = self.folder / "prog.wasm"
        path.write_bytes(wasm(text))
        chosen = {one.name: one.default for one in KIND.settings} | {"fuel": 100} | dict(settings)
        params = GUEST.params(run, chosen)
        blob = text.encode()[-32:].rjust(32)
        parts = (Part("module", blob, 1), *run.files)
        ram = needed_bytes(read_task(params).limits)
        return TaskSpec("wasm", params, parts, seed, KIND.units(params), 60, ram), path

    def __call__(
        self, text: str, run: GuestRun = PLAIN, files: Mapping[str, Path] = {}, seed: int = 0, **settings: int
    ) -> tuple[WasmValue, TaskResult]:
        task, path = self.spec(text, run, settings, seed)
        return self.do(task, {"module": path, **files})

    def do(self, task: TaskSpec, inputs: dict[str, Path], progress: Any = None) -> tuple[WasmValue, TaskResult]:
        self.count += 1
        out = self.folder / "work" / f"out-{self.count}"
        out.mkdir()
        work = TaskRun(task, inputs, out, 1, progress or (lambda _done, _total, _note: None), self.logs.append)
        program._modules.clear()  # hashes are made up here
        found = program.run(work)
        return decode(WasmValue, found.value), found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_printed_and_the_status_come_back(bench: Bench) -> None:
    assert bench(HELLO)[0].stdout == b"hello\n"
    value, _ = bench(EXIT_3)
    assert (value.status, value.trap) == (3, None)


def test_a_run_is_told_its_arguments_and_variables(bench: Bench) -> None:
    told = """(local $i i32)
      (drop (call ${0}_sizes_get (i32.const 16) (i32.const 20)))
      (drop (call ${0}_get (i32.const 100) (i32.const 4096)))
      (call $print (i32.const 4096) (i32.load (i32.const 20)))"""
    run = GuestRun("", ("one", "two words"), (("A", "1"), ("B", "")))
    args = wat(told.replace("{0}", "args"), calls="args_sizes_get args_get")
    assert bench(args, run)[0].stdout == b"program\0one\0two words\0"
    environment = wat(told.replace("{0}", "environ"), calls="environ_sizes_get environ_get")
    assert bench(environment, run)[0].stdout == b"A=1\0B=\0"


def test_an_input_is_standard_input(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"row\n" * 3_000)
    run = GuestRun("part", files=(Part("in/part", bytes(32), 1),), stdin="in/part")
    value, _ = bench(CAT, run, {"in/part": tmp_path / "part"})
    assert (value.name, value.stdout) == ("part", b"row\n" * 3_000)
    (tmp_path / "empty").touch()
    assert bench(CAT, run, {"in/part": tmp_path / "empty"})[0].stdout == b""


def test_what_is_written_below_out_are_files_of_the_result(bench: Bench) -> None:
    value, found = bench(WRITE_FILE)
    assert (value.status, value.trap) == (0, None)
    assert {name: path.read_bytes() for name, path in found.files.items()} == {"out/result": b"out/result"}


def test_much_that_is_printed_is_a_file(bench: Bench) -> None:
    text = wat("(local $i i32) (loop (call $print (i32.const 0) (i32.const 60000)) (br_if 0 (i32.lt_u (local.tee $i "
               "(i32.add (local.get $i) (i32.const 1))) (i32.const 3))))")  # fmt: skip
    value, found = bench(text)
    assert (value.stdout, found.files["stdout"].stat().st_size) == (b"", 180_000)


TRAPS = {
    "out of fuel": (FOREVER, 100 * FUEL_A_UNIT),
    "unreachable": (wat("unreachable"), None),
    "memory out of bounds": (wat("(drop (i32.load (i32.const 0x7fffffff)))"), 100 * FUEL_A_UNIT),
    "integer division by zero": (wat("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), 100 * FUEL_A_UNIT),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_program_that_cannot_go_on_has_a_result_and_a_price(bench: Bench, trap: str) -> None:
    """The engine's meter is written down at calls and where a program gives up; elsewhere all is paid."""
    text, fuel = TRAPS[trap]
    value, _ = bench(text)
    assert value.trap == trap
    assert value.fuel == fuel if fuel is not None else value.fuel < 100


def test_what_was_made_before_a_trap_is_kept(bench: Bench) -> None:
    value, _ = bench(wat("(call $print (i32.const 1024) (i32.const 5)) unreachable", data="first"))
    assert (value.stdout, value.trap) == (b"first", "unreachable")


def test_memory_ends_where_it_was_agreed(bench: Bench) -> None:
    """It is refused, as the program is told, and never more than that."""
    text = wat("(local $n i32) (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) "
               "(call $proc_exit (memory.size))", calls="proc_exit")  # fmt: skip
    assert bench(text, memory=8)[0].status == 8 * MIB // 65_536 - 15
    assert bench(text, memory=8)[0] == bench(text, memory=8)[0]


def test_a_table_is_bounded(bench: Bench) -> None:
    grow = ("(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)))) "
            "(call $proc_exit (table.size $t))")  # fmt: skip
    value, _ = bench(wat(grow, calls="proc_exit", more="(table $t 1 funcref)"), fuel=10_000)
    assert (value.trap, value.status) == (None, 900_001)


def test_recursion_without_end_is_no_result(bench: Bench) -> None:
    """Where it ends depends on the machine, so nobody signs for it."""
    text = wat("(call $deep)", more="(func $deep (call $deep) (call $deep))")
    with pytest.raises(FallowError) as failed:
        bench(text)
    assert (failed.value.code, failed.value.retryable) == ("E1723", False)


def test_chance_is_the_tasks_and_the_clock_runs_on_fuel(bench: Bench) -> None:
    text = wat(
        """(drop (call $random_get (i32.const 2048) (i32.const 16)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 2064)))
        (i32.store8 (i32.const 3016) (i32.const 0)) (i64.store (i32.const 3024) (i64.const 5000000000))
        (drop (call $poll_oneoff (i32.const 3000) (i32.const 3500) (i32.const 1) (i32.const 3600)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 2072)))
        (call $print (i32.const 2048) (i32.const 32))""",
        calls="random_get clock_time_get poll_oneoff",
    )
    one, again, other = bench(text)[0], bench(text)[0], bench(text, seed=1)[0]
    assert one == again
    assert one.stdout[:16] != other.stdout[:16]
    before, after = (int.from_bytes(one.stdout[at : at + 8], "little") for at in (16, 24))
    assert 10_000 < before < 100_000
    assert 5 * 10**9 < after - before < 5 * 10**9 + 100_000  # it slept, and nobody waited


def test_there_is_no_network(bench: Bench) -> None:
    zeros = "(i32.const 0)" * 5
    text = wat(f"(call $proc_exit (call $sock_send {zeros}))", calls="sock_send proc_exit")
    assert bench(text)[0].status == 58  # ENOTSUP


def test_printing_without_end_ends_at_the_agreed_size(bench: Bench) -> None:
    text = wat("(local $e i32) (loop (local.set $e (call $put (i32.const 1) (i32.const 0) (i32.const 60000))) "
               "(br_if 0 (i32.eqz (local.get $e)))) (call $proc_exit (local.get $e))", calls="proc_exit")  # fmt: skip
    value, found = bench(text, output=1)
    assert value.status == 51  # ENOSPC
    assert found.files["stdout"].stat().st_size == MIB // 60_000 * 60_000


def test_a_call_is_paid_before_it_is_done(bench: Bench) -> None:
    """A program that calls without end comes to its end as soon as one that computes."""
    text = wat("(loop (call $print (i32.const 0) (i32.const 0)) (br 0))")
    value, _ = bench(text, fuel=1)
    assert (value.trap, value.fuel) == ("out of fuel", FUEL_A_UNIT)


def test_a_run_that_nobody_wants_any_more_is_stopped(bench: Bench) -> None:
    task, path = bench.spec(FOREVER, PLAIN, {"fuel": 10_000_000}, 0)
    asked = threading.Event()

    def progress(_done: int, _total: int, _note: str) -> None:
        asked.set()
        raise fail("E1402", "The task was cancelled.")

    with pytest.raises(FallowError) as stopped:
        bench.do(task, {"module": path}, progress)
    assert stopped.value.code == "E1402"
    assert asked.is_set()
    assert bench(HELLO)[0].stdout == b"hello\n"


def test_tasks_of_others_making_are_refused(bench: Bench) -> None:
    task, path = bench.spec(HELLO, PLAIN, {}, 0)
    asked = read_task(task.params)
    changes: dict[str, TaskSpec] = {
        "E1708": msgspec.structs.replace(task, params=encode(msgspec.structs.replace(asked, engine="wasmtime 1.0.0"))),
        "less memory": msgspec.structs.replace(task, ram_bytes=MIB),
        "less than its run": msgspec.structs.replace(task, units=1),
    }
    for why, changed in changes.items():
        with pytest.raises(FallowError) as refused:
            bench.do(changed, {"module": path})
        assert why in f"{refused.value.code} {refused.value.what}"


def test_a_module_that_is_not_valid_is_the_buyers_own_fault(bench: Bench) -> None:
    with pytest.raises(FallowError) as refused:
        bench(wat("i32.add"))
    assert (refused.value.code, refused.value.retryable) == ("E1721", False)


FLOATS = wat(
    """(local $i i32)
    (loop
      (f64.store (i32.const 2048)
        (f64.div (f64.sub (f64.load (i32.const 2048)) (f64.const 1)) (f64.load (i32.const 2056))))
      (f32.store (i32.const 2064) (f32.sqrt (f32.demote_f64 (f64.load (i32.const 2048)))))
      (v128.store (i32.const 2080) (f32x4.mul (v128.load (i32.const 2064)) (v128.load (i32.const 2048))))
      (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
    (call $print (i32.const 2048) (i32.const 64))"""
)  # fmt: skip
"""What is not a number, in several ways; machines differ in how they write it."""
PROGRAMS = {"hello": HELLO, "numbers": FLOATS, "files": WRITE_FILE, "forever": FOREVER, "trap": wat("unreachable")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_another_instruction_set_gives_the_same(name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulley is a processor that the engine makes up: its compiler and its floating point are not this machine's."""
    here = bench(PROGRAMS[name], fuel=5)[0]
    other = wasmtime.Engine(wasm_engine.settings("pulley64"))
    monkeypatch.setattr(wasm_engine, "engine", lambda: other)
    monkeypatch.setattr(program, "engine", lambda: other)
    assert bench(PROGRAMS[name], fuel=5)[0] == here


def test_another_process_gives_the_same(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.workloads.test_wasm import Bench, PROGRAMS\n"
        "bench = Bench(Path(sys.argv[1]))\n"
        "for text in PROGRAMS.values(): print(bench(text, fuel=5)[1].value.hex())\n"
    )
    found: list[str] = []
    for number, seed in enumerate(("1", "2")):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        found.append(done.stdout)
    assert found[0] == found[1]
    assert found[0].count("\n") == len(PROGRAMS)
