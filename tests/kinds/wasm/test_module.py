"""What is wrong with a program is said on its owner's machine, by its true reason and with the remedy."""

from __future__ import annotations

import contextlib

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from tests.wasm_programs import CALLS, CAT, HELLO, wasm, wat

from fallow.errors import FallowError, UsageError
from fallow.kinds.wasm import module
from fallow.kinds.wasm.calls import SIGNATURES
from fallow.kinds.wasm.module import inspect
from fallow.units import MIB


def number(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def section(number_of: int, body: bytes) -> bytes:
    return bytes([number_of]) + number(len(body)) + body


HEAD = b"\0asm\1\0\0\0"
VOID = section(1, b"\1\x60\0\0")
START = section(7, b"\1\6_start\0\0")
EMPTY = b"\2\0\x0b"
ONE = HEAD + VOID + section(3, b"\1\0") + START


def with_code(*bodies: bytes) -> bytes:
    functions = section(3, number(len(bodies)) + b"\0" * len(bodies))
    return HEAD + VOID + functions + START + section(10, number(len(bodies)) + b"".join(bodies))


def test_a_program_says_what_it_wants() -> None:
    found = inspect(wasm(CAT), MIB)
    assert (sorted(found.imports), found.memory_bytes, found.functions) == (["fd_read", "fd_write"], 65_536, 3)
    assert "fd_read, fd_write" in found.lines()[1]


IMPORT = '(module (import "{}" "{}" (func {})) (memory (export "memory") 1) (func (export "_start")))'
SHARED = '(module ({}) (func (export "_start")))'
MISTAKES = {
    "nothing": (b"", "no WebAssembly", "empty"),
    "an ELF file": (b"\x7fELF" + bytes(60), "no WebAssembly", "wasm32-wasip1"),
    "text": (HELLO.encode(), "text", "wat2wasm"),
    "a component": (b"\0asm\x0d\0\1\0" + bytes(8), "component", "wasip2"),
    "a future version": (b"\0asm\2\0\0\0", "version", ""),
    "a library": (wasm('(module (func (export "_initialize")))'), "no _start", "library"),
    "a start with arguments": (wasm('(module (func (export "_start") (param i32)))'), "without arguments", ""),
    "preview 2": (wasm(IMPORT.format("wasi:cli/run@0.2.0", "run", "")), "wasi:cli/run", "preview 2"),
    "preview 0": (wasm(IMPORT.format("wasi_unstable", "fd_write", "")), "wasi_unstable", "preview 0"),
    "emscripten": (wasm(IMPORT.format("env", "emscripten_resize_heap", "")), "env.emscripten", "STANDALONE_WASM"),
    "a browser's Go": (wasm(IMPORT.format("gojs", "runtime.ticks", "")), "gojs", "GOOS=wasip1"),
    "a browser's Rust": (wasm(IMPORT.format("wbg", "__wbg_alert", "")), "wbg", "wasm-bindgen"),
    "a call that there is none of": (wasm(IMPORT.format(module.SYSTEM, "fork", "")), "fork", ""),
    "a call with other arguments": (wasm(IMPORT.format(module.SYSTEM, "fd_close", "(param i64)")), "fd_close", ""),
    "no memory to write to": (
        wasm(f'(module (import "{module.SYSTEM}" "sched_yield" (func (result i32))) (func (export "_start")))'),
        "export its memory",
        "",
    ),
    "threads": (wasm(SHARED.format('import "env" "memory" (memory 1 2 shared)')), "imports its memory", "threads"),
    "memory of its own that is shared": (wasm(SHARED.format("memory 1 2 shared")), "shared", "pthread"),
    "64 bits": (wasm('(module (memory i64 1) (func (export "_start")))'), "64-bit", "wasm32"),
    "too much memory": (wasm(wat("", pages=160)), "10.0 MiB", "--memory to 10"),
    "cut in the middle": (wasm(CAT)[:-40], "damaged", "cut"),
    "a huge table": (wasm('(module (table 2000000 funcref) (func (export "_start")))'), "table elements", "size"),
    "a function that is too long": (with_code(number(2 * MIB) + bytes(2 * MIB)), "function 0 is 2.0 MiB", "size"),
    "too many local variables": (with_code(b"\7\1" + number(1 << 30)[:5] + b"\x7f\x0b"), "local variables", "size"),
    "more bodies than functions": (ONE + section(10, b"\2" + 2 * EMPTY), "declares", ""),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_run_is_refused_by_name(mistake: str) -> None:
    data, what, more = MISTAKES[mistake]
    with pytest.raises(FallowError) as refused:
        inspect(data, MIB)
    error = refused.value
    assert error.code == "E1721"
    assert what in error.what
    assert more in f"{error.what} {error.cause} {error.next_step}"
    assert error.money == "Nothing was spent."


def test_a_program_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MODULE_BYTES", 100)
    with pytest.raises(FallowError, match="at most 100 B"):
        inspect(wasm(CAT), MIB)


def test_too_many_functions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FUNCTIONS", 10)
    inspect(with_code(*[EMPTY] * 10), MIB)
    with pytest.raises(FallowError, match="too many functions"):
        inspect(with_code(*[EMPTY] * 11), MIB)


def test_the_calls_here_are_as_the_engine_knows_them() -> None:
    """Each import of the test programs agrees with the table, and the engine's own WASI with all of it."""
    store = wasmtime.Store()
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    names = {"i32": "i", "i64": "I"}
    for name, signature in SIGNATURES.items():
        found = linker.get(store, module.SYSTEM, name)
        assert isinstance(found, wasmtime.Func)
        kind = found.type(store)
        assert (
            ":".join("".join(names[str(one)] for one in side) for side in (kind.params, kind.results)) == signature
        ), name
    assert set(CALLS) <= set(SIGNATURES)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_there_is_an_answer(data: bytes) -> None:
    for head in (b"", HEAD, HEAD + VOID):
        with pytest.raises(FallowError) as refused:
            inspect(head + data, MIB)
        assert refused.value.code == "E1721"


@given(st.integers(0, len(wasm(CAT)) - 1), st.integers(0, 255))
def test_a_changed_byte_never_breaks_the_reader(place: int, byte: int) -> None:
    data = bytearray(wasm(CAT))
    data[place] = byte
    with contextlib.suppress(UsageError):
        inspect(bytes(data), MIB)
