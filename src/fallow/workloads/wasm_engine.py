"""The engine that programs run in, set so that a module means the same on every machine: no threads, no shared memory,
no relaxed SIMD, one way to write what is not a number, all that is used metered.

Compiled modules are kept by the hash of what they were compiled from, in the memory of this process alone: what another
has compiled is machine code that nobody can check.

Defends against: modules whose compilation takes too long or too much memory. Does not defend against: bugs of the
compiler; what it makes runs in the worker's box."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import wasmtime

from fallow.errors import FallowError, fail
from fallow.kinds.wasm.module import inspect, refusal
from fallow.kinds.wasm.tasks import ENGINE

COMPILE_S, LOOK_S, END_AFTER_S = 60.0, 0.05, 1.0
KEPT_MODULES, KEPT_BYTES = 16, 64 << 20
MAX_STACK_BYTES = 1 << 20
_OFF = (
    "wasm_threads", "shared_memory", "wasm_relaxed_simd", "wasm_memory64", "wasm_multi_memory", "wasm_gc",
    "wasm_function_references", "wasm_exceptions", "wasm_component_model", "wasm_wide_arithmetic",
    "wasm_custom_page_sizes", "wasm_stack_switching", "parallel_compilation",
    "memory_init_cow",  # its files in memory are refused to workers
)  # fmt: skip
_ON = (
    "consume_fuel", "epoch_interruption", "cranelift_nan_canonicalization", "wasm_simd", "wasm_bulk_memory",
    "wasm_multi_value", "wasm_reference_types", "wasm_tail_call",
)  # fmt: skip


def settings(target: str = "") -> wasmtime.Config:
    """How the engine is set; `target` names another processor than this one's."""
    found = wasmtime.Config()
    for names, value in ((_OFF, False), (_ON, True)):
        for name in names:
            setattr(found, name, value)
    found.strategy, found.max_wasm_stack = "cranelift", MAX_STACK_BYTES
    if target:
        found.target = target
    return found


@functools.cache
def engine() -> wasmtime.Engine:
    """This process's. Errors: E1708 when it is another version than tasks are metered by."""
    here = f"wasmtime {version('wasmtime')}"
    if here != ENGINE:
        raise fail("E1708", f"{here} is installed, programs are metered by {ENGINE}.")
    found = wasmtime.Engine(settings())
    atexit.register(found.close)  # later its library may be gone
    return found


def compiled(program: bytes) -> wasmtime.Module:
    """The module as this machine's code. Raises WasmtimeError for what is not valid."""
    return wasmtime.Module(engine(), program)


def check(program: bytes) -> None:
    """Whether the engine takes the module, without compiling it. Raises UsageError E1721."""
    try:
        wasmtime.Module.validate(engine(), program)
    except wasmtime.WasmtimeError as error:
        raise _invalid(error) from None


def _invalid(error: Exception) -> FallowError:
    what = " ".join(str(error).split())
    cause = "It was cut or changed on its way, or uses a proposal that is not taken."
    return refusal(f"The module is not valid: {what[:300]}.", cause, "Build it again for wasm32-wasip1.")


class Modules:
    """Compiled modules by their hashes, the last used ones. `notes` is a folder that a worker's successor sees too:
    what kills the process while it is compiled is not tried again. What is not done in `compile_s` of a processor's
    time is given up, and the process with it, since nothing else stops a compiler."""

    def __init__(self, notes: Path, compile_s: float = COMPILE_S, give_up: Callable[[], None] | None = None) -> None:
        self._notes, self._compile_s, self._give_up = notes, compile_s, give_up or _end_soon
        self._kept: OrderedDict[bytes, tuple[wasmtime.Module, int]] = OrderedDict()

    def get(self, name: bytes, path: Path, memory_bytes: int) -> wasmtime.Module:
        """The module in the file `path`, whose hash is `name`. Errors: E1721 for one that cannot run in so much memory,
        E1722 for one that takes too long or too much to compile."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name][0]
        data = path.read_bytes()
        inspect(data, memory_bytes)
        found = self._compiled(data, self._notes / f"compiling-{name.hex()}")
        self._kept[name] = found, len(data)
        while len(self._kept) > KEPT_MODULES or sum(size for _, size in self._kept.values()) > KEPT_BYTES:
            if len(self._kept) == 1:
                break
            self._kept.popitem(last=False)
        return found

    def _compiled(self, data: bytes, note: Path) -> wasmtime.Module:
        if note.exists():
            raise too_hard("Its compilation took all memory, and its worker with it.")
        note.touch()
        done = list[wasmtime.Module | Exception]()

        def work() -> None:
            try:
                done.append(compiled(data))
            except Exception as error:  # noqa: BLE001 - told to the thread that waits
                done.append(error)

        thread = threading.Thread(target=work, name="compile", daemon=True)
        thread.start()
        began = time.process_time()  # on a busy machine a compiler that waits is not to blame
        while thread.is_alive() and time.process_time() - began < self._compile_s:
            thread.join(LOOK_S)
        if not done:
            self._give_up()
            raise too_hard(f"Its compilation was not done in {self._compile_s:g} s of a processor's time.")
        note.unlink()
        match done[0]:
            case wasmtime.Module() as found:
                return found
            case wasmtime.WasmtimeError() as error:
                raise _invalid(error)
            case Exception() as error:
                raise error


def _end_soon() -> None:
    """The compiler cannot be stopped but with its process; first the answer must be on its way."""
    ending = threading.Timer(END_AFTER_S, os._exit, (1,))
    ending.daemon = True
    ending.start()


def too_hard(cause: str) -> FallowError:
    """E1722."""
    return fail("E1722", "The program cannot be compiled within what a run may take.", cause=cause)
