"""Compiling a stranger's module: bounded in time, in memory and in what is kept, and never somebody else's work."""

from __future__ import annotations

import threading
from importlib import metadata
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from tests.kinds.wasm.test_module import HEAD, VOID, number, section
from tests.wasm_programs import CAT, HELLO, wasm, wat

from fallow.errors import FallowError, UsageError
from fallow.kinds.wasm.tasks import ENGINE
from fallow.units import MIB
from fallow.workloads import wasm_engine
from fallow.workloads.wasm_engine import Modules, check, engine


def put(folder: Path, data: bytes) -> Path:
    path = folder / "prog.wasm"
    path.write_bytes(data)
    return path


def test_a_module_is_compiled_once(tmp_path: Path) -> None:
    modules, path = Modules(tmp_path), put(tmp_path, wasm(HELLO))
    first = modules.get(b"1" * 32, path, MIB)
    path.write_bytes(b"gone")
    assert modules.get(b"1" * 32, path, MIB) is first
    assert list(tmp_path.iterdir()) == [path]


def test_few_are_kept(tmp_path: Path) -> None:
    modules, path = Modules(tmp_path), put(tmp_path, wasm(HELLO))
    kept = [modules.get(bytes([n]) * 32, path, MIB) for n in range(wasm_engine.KEPT_MODULES + 1)]
    assert modules.get(bytes([1]) * 32, path, MIB) is kept[1]
    assert modules.get(bytes(32), path, MIB) is not kept[0]


def test_what_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with a code, and not tried again: neither here, nor elsewhere. The process ends, and the compiler in it."""
    never, given_up = threading.Event(), list[str]()
    monkeypatch.setattr(wasm_engine, "compiled", lambda _data: never.wait())
    modules, path = Modules(tmp_path, 0, lambda: given_up.append("it")), put(tmp_path, wasm(CAT))
    for _ in range(2):
        with pytest.raises(FallowError) as refused:
            modules.get(b"1" * 32, path, MIB)
        assert (refused.value.code, refused.value.retryable) == ("E1722", False)
    assert given_up == ["it"]
    never.set()


def test_what_killed_a_worker_is_not_compiled_again(tmp_path: Path) -> None:
    """The note of a worker that died is found by the next one."""
    (tmp_path / f"compiling-{bytes(32).hex()}").touch()
    with pytest.raises(FallowError) as refused:
        Modules(tmp_path).get(bytes(32), put(tmp_path, wasm(HELLO)), MIB)
    assert refused.value.code == "E1722"
    assert "all memory" in refused.value.cause


def test_another_engines_meter_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"wasmtime {metadata.version('wasmtime')}" == ENGINE
    monkeypatch.setattr(wasm_engine, "version", lambda _name: "1.0.0")
    engine.cache_clear()
    with pytest.raises(FallowError, match=r"wasmtime 1\.0\.0 is installed"):
        engine()
    engine.cache_clear()


TOO_NEW = {
    "threads": "(module (memory 1 1 shared))",
    "64-bit memory": "(module (memory i64 1))",
    "two memories": "(module (memory 1) (memory 1))",
    "relaxed SIMD": "(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
    "garbage collection": "(module (type (struct (field i32))))",
    "exceptions": "(module (tag))",
}  # fmt: skip


@pytest.mark.parametrize("proposal", TOO_NEW)
def test_what_could_differ_between_machines_is_off(proposal: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(bytes(wasmtime.wat2wasm(TOO_NEW[proposal])))
    assert refused.value.code == "E1721"


@given(st.binary(max_size=200))
def test_malformed_code_is_the_modules_fault(code: bytes) -> None:
    body = b"\0" + code
    data = HEAD + VOID + section(3, b"\1\0") + section(10, b"\1" + number(len(body)) + body)
    try:
        wasmtime.Module.validate(engine(), data)
    except wasmtime.WasmtimeError:
        with pytest.raises(UsageError):
            check(data)


@given(st.integers(8, len(wasm(CAT)) - 1), st.integers(0, 255))
def test_a_changed_module_runs_or_is_refused(place: int, byte: int) -> None:
    """Whatever was changed, there is a module or one error."""
    data = bytearray(wasm(CAT))
    data[place] = byte
    try:
        check(bytes(data))
    except UsageError:
        return
    wasmtime.Module(engine(), bytes(data))


BOMBS = {
    "many blocks": wat("(block " * 5_000 + ")" * 5_000),
    "a wide switch": wat(f"(block (br_table {'0 ' * 60_000} (i32.const 1)))"),
    "many locals that are all used": wat(
        f"(local {'i64 ' * 2_000}) "
        + "".join(f"(local.set {n} (i64.add (local.get {n}) (i64.const 1)))" for n in range(2_000))
        + "(loop (br_if 0 (i64.eqz (local.get 7))))"
    ),
    "data": wat("", pages=100, more=f'(data (i32.const 2048) "{"x" * 100_000}")' * 40),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_let_through_compiles(bomb: str, tmp_path: Path) -> None:
    """Within the sizes that are taken, what looks like a bomb is none."""
    assert Modules(tmp_path).get(bytes(32), put(tmp_path, wasm(BOMBS[bomb])), 8 * MIB) is not None
