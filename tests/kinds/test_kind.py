"""What every kind must answer: the contract of the socket, which each member of the registry passes."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import PeerFault, UsageError
from fallow.kinds.kind import MOST_BYTES, Kind, grains, text_of
from fallow.kinds.lane import Asked
from fallow.kinds.registry import KINDS
from fallow.wire.local import BatchJob, LaneJob
from fallow.wire.tasks import TaskOutput, TaskSpec

NONSENSE = (b"\xc1", b"\xff" * 40)
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def line(kind: Kind) -> bytes | None:
    """Parameters from a line of text, None for a kind that has none."""
    with suppress(UsageError):
        return kind.read("7", {one.name: one.default for one in kind.settings})
    return None


@every_kind
def test_its_facts_are_all_there(kind: Kind) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,39}", kind.name)
    assert kind.unit.isalpha()
    assert kind.depth >= 1
    assert kind.usual_ram_bytes > 0
    assert kind.usual_s > 0
    assert kind.price_ucr >= 0
    assert isinstance(kind.same_everywhere, bool)
    assert all(extra.name and extra.packages for extra in kind.extras)
    assert all(kind.speed(flops) >= 1 for flops in (0, 10**9, 10**15))


@every_kind
def test_its_programs_can_be_imported_and_called(kind: Kind) -> None:
    programs = [(kind.program, 1)] + ([(kind.lane.program, 3)] if kind.lane is not None else [])
    for name, takes in programs:
        module, _, function = name.partition(":")
        assert module.startswith("fallow.workloads.")
        assert len(inspect.signature(getattr(import_module(module), function)).parameters) == takes


@every_kind
def test_work_of_which_nothing_more_is_known_gets_the_usual(kind: Kind) -> None:
    for work in (BatchJob(kind.name, (b"",), (), 1), LaneJob(kind.name, 1)):
        assert kind.ram_bytes(work) == kind.usual_ram_bytes
        assert kind.timeout_s(work, 1) == kind.usual_s
        assert kind.lease_ms(work, 1, 5) == 5
        assert kind.disk_bytes(work) == 0
        assert not kind.exact(work)
        assert kind.chain(work) is None


@every_kind
def test_a_line_of_text_becomes_parameters_that_it_takes_itself(kind: Kind) -> None:
    params = line(kind)
    if params is None:
        return
    assert kind.units(params) >= 1
    assert kind.kept_bytes(TaskSpec(kind.name, params, (), 0, 1, 1, 1)) == 0


@every_kind
def test_what_is_no_task_of_its_is_refused_with_a_code(kind: Kind) -> None:
    for params in NONSENSE:
        with suppress(PeerFault, UsageError):
            assert kind.units(params) >= 1


@every_kind
@given(value=st.binary(max_size=80))
def test_no_output_makes_it_fail(kind: Kind, value: bytes) -> None:
    task = TaskSpec(kind.name, line(kind) or value, (), 0, 1, 1, 1)
    assert kind.well_formed(task, TaskOutput(value, ())) in (True, False)
    assert isinstance(kind.shown(value), str)


@every_kind
@given(value=st.binary(max_size=80), units=st.integers(0, 10_000))
def test_a_lane_never_takes_more_than_the_most(kind: Kind, value: bytes, units: int) -> None:
    params = line(kind)
    if kind.lane is None or params is None:
        return
    most = kind.lane.most_units(params)
    assert most >= 1
    assert kind.lane.resumed(params, "", 0) == params
    assert kind.lane.usual_units(LaneJob(kind.name, 1)) >= 1
    assert not kind.lane.fits(Asked(params), value, units) or units <= most


def test_sizes_are_asked_for_in_grains() -> None:
    assert grains(1) == 64 << 20
    assert grains(1 << 60) == MOST_BYTES


def test_text_is_text() -> None:
    assert (text_of(b"plain"), text_of(b"\xff")) == ("plain", "")
