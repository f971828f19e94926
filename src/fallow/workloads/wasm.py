"""The program of `wasm`: runs somebody's WebAssembly module as `kinds/wasm/` says. What it gives follows from the task
alone: exit status, what was printed, files, and the fuel that it took.

How a run ends is its result, whatever it is: a program that fails has failed for its owner, who pays for what it used.
Only what may differ between honest machines is no result but a failed task: a stack that is used up (frames are as
large as a processor's compiler makes them), memory that a machine does not have, and time.

Defends against: programs that never end (fuel, and the worker's time limit), that take memory (a limit, and the
worker's), that write without end (a limit for all files and prints), that reach for what is not theirs (there is
nothing else in their world), and modules that are bombs for a compiler."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path

import wasmtime
from blake3 import blake3

from fallow.errors import FallowError, fail
from fallow.kinds.wasm.kind import needed_bytes, read_task
from fallow.kinds.wasm.module import MAX_TABLE_ELEMENTS, MAX_TABLES
from fallow.kinds.wasm.tasks import (
    ENGINE,
    FUEL_A_UNIT,
    INLINE_BYTES,
    INPUTS,
    MODULE,
    STDERR,
    STDOUT,
    WasmTask,
    WasmValue,
    units_of,
)
from fallow.wire.codec import encode
from fallow.workloads.task import TaskResult, TaskRun
from fallow.workloads.wasm_calls import Exited, Start, System
from fallow.workloads.wasm_engine import Modules, engine
from fallow.workloads.wasm_files import File, Room, tree, written
from fallow.workloads.wasm_memory import FuelOut

ASK_EVERY_S = 0.2
PROGRAM_NAME = "program"
OUT_OF_FUEL = "out of fuel"
_modules: list[Modules] = []


def run(work: TaskRun) -> TaskResult:
    """One run. Errors: E1707 for a task that makes no sense, E1708 for one of another engine, E1721 and E1722 for a
    module that cannot be run, E1723 for a run that goes deeper than every machine allows."""
    task = read_task(work.task.params)
    _check(work, task)
    if not _modules:
        _modules.append(Modules(work.outdir.parent))
    compiled = _modules[0].get(work.content(MODULE), work.input(MODULE), task.limits.memory_bytes)
    return ProgramRun(work, task).result(compiled)


def _check(work: TaskRun, task: WasmTask) -> None:
    if task.engine != ENGINE:
        raise fail("E1708", f"The task is metered by {task.engine[:40]}, here is {ENGINE}.")
    if needed_bytes(task.limits) > work.task.ram_bytes:
        raise fail("E1707", "The task asks for less memory than its run may use.")
    if task.limits.units > work.task.units:
        raise fail("E1707", "The task is metered at less than its run may use.")


class ProgramRun:
    """One run of a program, from its files to its results."""

    def __init__(self, work: TaskRun, task: WasmTask) -> None:
        self._work, self._task = work, task
        self._fuel = task.limits.units * FUEL_A_UNIT
        self._room = Room(task.limits.output_bytes)
        files = {name: path for name, path in work.inputs.items() if name.startswith(f"{INPUTS}/")}
        self._root = tree(files, self._room)
        self._store = wasmtime.Store(engine())
        self._store.set_fuel(self._fuel)
        self._store.set_epoch_deadline(1)
        self._store.set_limits(task.limits.memory_bytes, MAX_TABLE_ELEMENTS, 1, MAX_TABLES, 1)
        words = [word.encode() for word in (PROGRAM_NAME, *task.args)]
        environment = [f"{name}={value}".encode() for name, value in task.environment]
        seed = blake3(work.task.seed.to_bytes(8, "big")).digest()
        start = Start(self._fuel, words, environment, seed)
        self._system = System(self._store, start, self._root, self._stdin(), self._room)

    def result(self, compiled: wasmtime.Module) -> TaskResult:
        """Run it to its end, whatever that is."""
        try:
            with _watched(self._work) as stopped:
                status, trap, fuel = self._ended(compiled)
        finally:
            self._store.close()  # it holds us, and we hold it
        if stopped:
            raise stopped[0]
        return self._told(status, trap, fuel)

    def _stdin(self) -> File:
        if not self._task.stdin:
            return File(self._room, b"")
        at = self._root
        *folders, name = self._task.stdin.split("/")
        for one in folders:
            at = at.folder(one)
        found = at.entries.get(name)
        if not isinstance(found, File):
            raise fail("E1707", "Standard input is to be a folder.")
        return found

    def _ended(self, compiled: wasmtime.Module) -> tuple[int, str | None, int]:
        """-> the exit status, why it could not go on, and what it costs."""
        try:
            self._call(compiled)
        except Exited as exited:
            return exited.status, None, self._used()
        except FuelOut:
            return 0, OUT_OF_FUEL, self._fuel
        except wasmtime.Trap as trap:
            return self._trapped(trap)
        return 0, None, self._used()

    def _call(self, compiled: wasmtime.Module) -> None:
        with contextlib.closing(wasmtime.Linker(engine())) as linker:
            self._system.define(linker)
            instance = linker.instantiate(self._store, compiled)
        exports = instance.exports(self._store)
        memory = exports.get("memory")
        if isinstance(memory, wasmtime.Memory):
            self._system.memory = memory
        start = exports["_start"]
        assert isinstance(start, wasmtime.Func), "it was looked at"
        start(self._store)

    def _trapped(self, trap: wasmtime.Trap) -> tuple[int, str | None, int]:
        code = trap.trap_code
        if code is wasmtime.TrapCode.STACK_OVERFLOW:
            raise fail("E1723", "The program went deeper than its stack.")
        if code is wasmtime.TrapCode.OUT_OF_FUEL:
            return 0, OUT_OF_FUEL, self._fuel
        self._work.log(str(trap)[:4_000])
        words = code.name.lower().replace("_", " ") if code is not None else "could not go on"
        # Only where a program gives up by itself has the engine written down what was used since its last call.
        exact = code is wasmtime.TrapCode.UNREACHABLE
        return 0, words, self._used() if exact else self._fuel

    def _used(self) -> int:
        return self._fuel - self._store.get_fuel()

    def _told(self, status: int, trap: str | None, fuel: int) -> TaskResult:
        files: dict[str, Path] = {}
        for name, file in written(self._root):
            files[name] = _write(self._work.outdir / name, file.read(0, file.size))
        inline: list[bytes] = []
        for name, data in ((STDOUT, self._system.stdout.data), (STDERR, self._system.stderr.data)):
            if len(data) > INLINE_BYTES:
                files[name] = _write(self._work.outdir / name, data)
                data = b""
            inline.append(bytes(data))
        value = WasmValue(self._task.name, status, trap, fuel, *inline)
        units = self._task.limits.units
        self._work.progress(units_of(fuel), units, "")
        return TaskResult(encode(value), files, {"fuel": fuel})


def _write(path: Path, data: bytes | bytearray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def _watched(work: TaskRun) -> Generator[list[FallowError]]:
    """While the program runs, ask again and again whether it is still wanted; what says no is handed on, and the
    program stopped."""
    stopped, over = list[FallowError](), threading.Event()

    def ask() -> None:
        while not over.wait(ASK_EVERY_S):
            try:
                work.progress(0, work.task.units, "running")
            except FallowError as error:
                stopped.append(error)
                engine().increment_epoch()
                return

    thread = threading.Thread(target=ask, name="still wanted", daemon=True)
    thread.start()
    try:
        yield stopped
    finally:
        over.set()
        thread.join()
