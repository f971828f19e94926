"""`wasm` runs anybody's own WebAssembly program: a command for WASI preview 1, as compilers of Rust, Go, C and others
make them. It sees its arguments, its input files and a folder to write, and nothing that differs between machines, so
that any provider can check any other's run, and its owner can do it again.

A unit is a million of the engine's fuel, about one operation each. What is paid is what was used; the run ends where
what was agreed on is used up."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from fallow.errors import FallowError, PeerFault, fail
from fallow.kinds.guest import Guest, GuestRun, RunEnding
from fallow.kinds.kind import GRAIN_BYTES, READ_BYTES_PER_S, Extra, Kind, Setting, grains, text_of
from fallow.kinds.wasm import module
from fallow.kinds.wasm.replay import WasmReplay
from fallow.kinds.wasm.tasks import (
    ENGINE,
    FUEL_A_UNIT,
    INPUTS,
    MAX_MEMORY_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_UNITS,
    MODULE,
    OUTPUTS,
    STDERR,
    STDOUT,
    RunLimits,
    WasmTask,
    WasmValue,
    units_of,
)
from fallow.units import MIB
from fallow.wire.codec import decode, encode, recall
from fallow.wire.local import BatchJob, Work
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, Part, TaskOutput, TaskSpec
from fallow.wire.trees import path_problem

ENGINE_BYTES = 512 * MIB
"""Python, the engine, and what it takes to compile a program as large as may be."""
USUAL_UNITS_PER_S = 500
SLOWEST_UNITS_PER_S = 20
"""A program that waits for its memory all the time, on a slow machine."""
START_S = 240
"""To fetch a small program and compile it."""


class WasmGuest(Guest):
    """Modules for WASI preview 1."""

    module = MODULE
    folder = INPUTS
    check = "fallow.workloads.wasm_engine:check"

    def inspect(self, program: bytes, settings: Mapping[str, int]) -> tuple[str, ...]:
        return module.inspect(program, settings["memory"] * MIB).lines()

    def params(self, run: GuestRun, settings: Mapping[str, int]) -> bytes:
        task = WasmTask(ENGINE, _limits(settings), run.name, run.args, run.environment, run.files, run.stdin)
        data = encode(task)
        try:
            read_task(data)
        except PeerFault as error:
            raise fail("E2001", f"No program can be run like that: {error.what}.") from error
        return data

    def name_of(self, value: bytes) -> str:
        found = _value(value)
        return found.name if found is not None and not path_problem(found.name) else ""

    def files_of(self, value: bytes) -> dict[str, bytes]:
        found = _value(value)
        printed = {STDOUT: found.stdout, STDERR: found.stderr} if found is not None else {}
        return {name: data for name, data in printed.items() if data}

    def ending(self, value: bytes) -> RunEnding:
        found = _value(value)
        if found is None:
            return RunEnding(False, "its output cannot be read")
        used = f"after {found.fuel:,} of fuel"
        if found.trap:
            return RunEnding(False, f"{found.trap}, {used}")
        return RunEnding(found.status == 0, f"exit status {found.status}, {used}")


GUEST = WasmGuest()


class Wasm(Kind):
    """A run of a program; a line of text is a run's arguments, as a shell would split them."""

    name = "wasm"
    depth = 4
    usual_ram_bytes = ENGINE_BYTES + 320 * MIB
    usual_s = START_S
    price_ucr = 10
    same_everywhere = True
    quick = True
    extras = (Extra("wasm", ("wasmtime",)),)
    program = "fallow.workloads.wasm:run"
    settings = (
        Setting("fuel", 20_000, "the most units that a run may use, of a million fuel each"),
        Setting("memory", 256, "of a run, in MiB"),
        Setting("output", 64, "the most that a run may print and write, in MiB"),
    )
    guest = GUEST
    replay = WasmReplay()

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        try:
            args = shlex.split(line)
        except ValueError as error:
            raise fail("E2001", f"These are no arguments: {line[:40]!r} ({error}).") from error
        return GUEST.params(GuestRun("", tuple(args)), settings)

    def units(self, params: bytes) -> int:
        return read_task(params).limits.units

    def parts(self, params: bytes) -> tuple[Part, ...]:
        return read_task(params).files

    def speed(self, flops: int) -> int:
        return USUAL_UNITS_PER_S

    def ram_bytes(self, work: Work) -> int:
        task = _first(work)
        return self.usual_ram_bytes if task is None else grains(needed_bytes(task.limits))

    def timeout_s(self, work: Work, units: int) -> int:
        return START_S + units // SLOWEST_UNITS_PER_S + _input_bytes(work) // READ_BYTES_PER_S

    def disk_bytes(self, work: Work) -> int:
        task = _first(work)
        return 0 if task is None else grains(_input_bytes(work) + task.limits.output_bytes)

    def output_bytes(self, work: Work) -> int:
        task = _first(work)
        return GRAIN_BYTES if task is None else task.limits.output_bytes

    def metered(self, task: TaskSpec, output: TaskOutput) -> int:
        found = _value(output.value)
        return task.units if found is None else min(units_of(found.fuel), task.units)

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        found = _value(output.value)
        try:
            asked = read_task(task.params)
        except FallowError:
            return False
        if found is None or found.name != asked.name or found.fuel > asked.limits.units * FUEL_A_UNIT:
            return False
        return all(_may_be_called(part.name) for part in output.parts)

    def shown(self, value: bytes) -> str:
        found = _value(value)
        if found is None:
            return ""
        if found.status == 0 and not found.trap:
            return text_of(found.stdout).rstrip("\n")
        said = text_of(found.stderr).rstrip("\n")
        return f"[{GUEST.ending(value).how}]\n{said}".rstrip("\n")


def read_task(params: bytes) -> WasmTask:
    """Raises PeerFault E1102 for what is no run of a program, UsageError E1707 for names that could not be files'."""
    task = decode(WasmTask, params, MAX_PARAMS_BYTES)
    if task.name and path_problem(task.name):
        raise fail("E1707", f"Results cannot be called that: {path_problem(task.name)}.")
    names = [part.name for part in task.files]
    for name in names:
        if not name.startswith(f"{INPUTS}/") or path_problem(name):
            raise fail("E1707", f"An input cannot be called {name[:60]!r}: {path_problem(name) or 'it is elsewhere'}.")
    if len(set(names)) != len(names):
        raise fail("E1707", "Two inputs of a run have the same name.")
    if task.stdin and task.stdin not in names:
        raise fail("E1707", f"Standard input is to be {task.stdin[:60]!r}, which is no input.")
    if any("\0" in text for text in (*task.args, *(word for pair in task.environment for word in pair))):
        raise fail("E1707", "An argument or a variable has a zero byte.")
    return task


def needed_bytes(limits: RunLimits) -> int:
    """The memory that a worker needs for a run within these limits. What is written stays in memory until its end."""
    return ENGINE_BYTES + limits.memory_bytes + limits.output_bytes


def _limits(settings: Mapping[str, int]) -> RunLimits:
    units, memory, output = settings["fuel"], settings["memory"] * MIB, settings["output"] * MIB
    most = {"fuel": (units, MAX_UNITS, 1), "memory": (memory, MAX_MEMORY_BYTES, MIB),
            "output": (output, MAX_OUTPUT_BYTES, MIB)}  # fmt: skip
    for name, (amount, limit, scale) in most.items():
        if amount > limit:
            raise fail("E2001", f"--{name} {amount // scale} is more than any provider gives: {limit // scale}.")
    return RunLimits(units, memory, output)


def _first(work: Work) -> WasmTask | None:
    """A run of the job: all have the same limits, and one that has others is refused by its worker."""
    if not isinstance(work, BatchJob) or not work.params:
        return None
    try:
        return read_task(work.params[0])
    except FallowError:
        return None


def _input_bytes(work: Work) -> int:
    """What the program, the files of all runs and those of the largest one take."""
    if not isinstance(work, BatchJob):
        return 0
    own = (sum(part.size_bytes for part in _glance(params)) for params in work.params)
    return sum(part.size_bytes for part in work.inputs) + max(own, default=0)


def _glance(params: bytes) -> tuple[Part, ...]:
    """The files of a run, unchecked: a job may have a hundred thousand."""
    try:
        return recall(WasmTask, params).files
    except FallowError:
        return ()


def _value(value: bytes) -> WasmValue | None:
    try:
        return decode(WasmValue, value, MAX_VALUE_BYTES)
    except FallowError:
        return None


def _may_be_called(name: str) -> bool:
    return name in (STDOUT, STDERR) or (name.startswith(f"{OUTPUTS}/") and not path_problem(name))
