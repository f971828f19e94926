"""The kind `wasm`: what a run is asked, what it costs, and which outputs can be its."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError
from fallow.kinds.guest import GuestRun
from fallow.kinds.registry import kind_named, metered
from fallow.kinds.wasm.kind import GUEST, needed_bytes, read_task
from fallow.kinds.wasm.tasks import ENGINE, FUEL_A_UNIT, RunLimits, WasmTask, WasmValue, units_of
from fallow.units import MIB
from fallow.wire.codec import encode
from fallow.wire.local import BatchJob
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

KIND = kind_named("wasm")
SETTINGS = {one.name: one.default for one in KIND.settings} | {"fuel": 50}
OWN = Part("in/part.csv", bytes(32), 1_000_000)
PARAMS = GUEST.params(GuestRun("part.csv", ("-v",), (("A", "b"),), (OWN,), OWN.name), SETTINGS)
MODULE = Part("module", bytes(32), 500)
TASK = TaskSpec("wasm", PARAMS, (MODULE, OWN), 0, 50, 60, 1 << 30)
VALUE = WasmValue("part.csv", 0, None, 3 * FUEL_A_UNIT, b"said\n", b"")


def output(*names: str, **changes: object) -> TaskOutput:
    parts = tuple(Part(name, bytes(32), 1) for name in names)
    return TaskOutput(encode(msgspec.structs.replace(VALUE, **changes)), parts)


def test_a_run_names_its_own_inputs() -> None:
    assert KIND.parts(PARAMS) == (OWN,)
    assert KIND.units(PARAMS) == 50
    assert read_task(PARAMS).engine == ENGINE


def test_a_run_costs_what_it_used_and_never_more_than_was_agreed() -> None:
    assert metered(TASK, output()) == 3
    assert metered(TASK, output(fuel=3 * FUEL_A_UNIT + 1)) == 4
    assert metered(TASK, output(fuel=0)) == 1
    assert metered(TASK, output(fuel=1 << 60)) == 50
    assert metered(TASK, TaskOutput(b"nonsense", ())) == 50


@given(st.binary(max_size=200))
def test_whatever_a_provider_wrote_is_no_more_than_a_bad_answer(value: bytes) -> None:
    made = TaskOutput(value, ())
    assert 1 <= metered(TASK, made) <= 50
    assert not KIND.well_formed(TASK, made)
    assert KIND.shown(value) == ""
    assert GUEST.name_of(value) == ""
    assert not GUEST.ending(value).well


def test_only_outputs_of_the_run_are_well_formed() -> None:
    assert KIND.well_formed(TASK, output("out/a/b.txt", "stderr", "stdout"))
    assert not KIND.well_formed(TASK, output("elsewhere"))
    assert not KIND.well_formed(TASK, output("out/../keys"))
    assert not KIND.well_formed(TASK, output(name="another"))
    assert not KIND.well_formed(TASK, output(fuel=50 * FUEL_A_UNIT + 1))
    assert not KIND.well_formed(msgspec.structs.replace(TASK, params=b"?"), output())


def test_what_people_see() -> None:
    assert KIND.shown(output().value) == "said"
    assert KIND.shown(output(status=3, stderr=b"no such row\n").value).splitlines()[1] == "no such row"
    assert GUEST.ending(output(status=3).value) == (False, "exit status 3, after 3,000,000 of fuel")
    assert GUEST.ending(output(trap="unreachable").value) == (False, "unreachable, after 3,000,000 of fuel")
    assert GUEST.files_of(output().value) == {"stdout": b"said\n"}
    assert GUEST.name_of(output().value) == "part.csv"


def test_needs_follow_from_the_limits() -> None:
    work = BatchJob("wasm", (PARAMS, PARAMS), (MODULE,), 50)
    limits = read_task(PARAMS).limits
    assert KIND.ram_bytes(work) >= needed_bytes(limits) > limits.memory_bytes + limits.output_bytes
    assert KIND.disk_bytes(work) >= OWN.size_bytes + MODULE.size_bytes + limits.output_bytes
    assert KIND.output_bytes(work) == limits.output_bytes == 64 * MIB
    assert KIND.timeout_s(work, 1_000_000) > KIND.timeout_s(work, 1)
    assert units_of(1) == 1


@pytest.mark.parametrize(
    "task",
    [
        WasmTask(ENGINE, RunLimits(1, MIB, 1), "../up"),
        WasmTask(ENGINE, RunLimits(1, MIB, 1), files=(Part("elsewhere", bytes(32), 1),)),
        WasmTask(ENGINE, RunLimits(1, MIB, 1), files=(Part("in/../../keys", bytes(32), 1),)),
        WasmTask(ENGINE, RunLimits(1, MIB, 1), files=(OWN, OWN)),
        WasmTask(ENGINE, RunLimits(1, MIB, 1), stdin="in/nothing"),
        WasmTask(ENGINE, RunLimits(1, MIB, 1), args=("a\0b",)),
        WasmTask(ENGINE, RunLimits(0, MIB, 1)),
        WasmTask(ENGINE, RunLimits(1, 1 << 40, 1)),
    ],
)
def test_what_makes_no_sense_is_refused_by_everybody(task: WasmTask) -> None:
    with pytest.raises(FallowError) as refused:
        KIND.units(encode(task))
    assert refused.value.code in ("E1707", "E1102")


def test_limits_beyond_all_providers_are_said_at_once() -> None:
    for name in ("fuel", "memory", "output"):
        with pytest.raises(FallowError, match=f"--{name} 99999999 is more"):
            KIND.read("", SETTINGS | {name: 99_999_999})
    with pytest.raises(FallowError, match="no arguments"):
        KIND.read("it's", SETTINGS)
    assert read_task(KIND.read("a 'b c'", SETTINGS)).args == ("a", "b c")
