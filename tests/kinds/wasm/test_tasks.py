"""Runs and their values as they are hashed: a change here changes what everybody has signed."""

from __future__ import annotations

from fallow.kinds.wasm.tasks import FUEL_A_UNIT, RunLimits, WasmTask, WasmValue, units_of
from fallow.wire.claims import output_hash
from fallow.wire.codec import decode, encode
from fallow.wire.tasks import Part, TaskOutput


def test_what_is_hashed_stays_as_it_is() -> None:
    task = WasmTask(
        "wasmtime 50.0.1", RunLimits(1, 1 << 20, 1), "a", ("b",), (("c", "d"),), (Part("in/e", bytes(32), 9),), "in/e"
    )
    value = WasmValue("a", 3, None, 7, b"out", b"err")
    assert decode(WasmTask, encode(task)) == task
    assert decode(WasmValue, encode(value)) == value
    assert encode(value).hex() == "96a16103c007c4036f7574c403657272"
    assert len(output_hash(TaskOutput(encode(value), ()))) == 32


def test_a_started_unit_is_a_unit() -> None:
    assert [units_of(fuel) for fuel in (0, 1, FUEL_A_UNIT, FUEL_A_UNIT + 1)] == [1, 1, 1, 2]
