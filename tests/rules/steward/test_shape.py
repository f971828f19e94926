"""The socket for forms of jobs, seen from outside."""

from __future__ import annotations

import msgspec
import pytest

from fallow.errors import FallowError
from fallow.rules.steward.shape import LaneTerms
from fallow.rules.steward.shapes.registry import LIST, SHAPES, shape_named, shape_of
from fallow.wire.local import BatchJob, ServeJob, TrainJob, Work
from fallow.wire.tasks import Recipe


class Nobodys(Work, msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="nobodys"):
    pass


def test_an_unknown_form_is_refused_by_name() -> None:
    with pytest.raises(FallowError) as refused:
        shape_of(Nobodys())
    assert refused.value.code == "E2001"
    assert "Nobodys" in refused.value.what
    assert all(shape.name in refused.value.cause for shape in SHAPES.values())


def test_a_form_is_known_by_its_name_or_refused_by_it() -> None:
    assert [shape_named(shape.name) for shape in SHAPES.values()] == list(SHAPES.values())
    with pytest.raises(FallowError) as refused:
        shape_named("nobodys")
    assert (refused.value.code, "'nobodys'" in refused.value.what) == ("E2001", True)
    assert all(shape.name in refused.value.cause for shape in SHAPES.values())


def test_only_a_list_of_inputs_is_a_job_without_more_words() -> None:
    assert LIST.of_inputs("echo", (b"a", b"b"), (), 2) == BatchJob("echo", (b"a", b"b"), (), 2)
    for shape in SHAPES.values():
        if shape is not LIST:
            with pytest.raises(FallowError, match=f"A {shape.name} job is more than a list of inputs"):
                shape.of_inputs("echo", (b"a",), (), 1)


def test_only_jobs_on_lanes_have_one() -> None:
    served = ServeJob("m", bytes(32), b"a" * 32, 2, 100, "exact")
    terms = shape_of(served).lane(served)
    assert terms[1:] == (100, True, "m")
    assert [(part.name, part.blob) for part in terms.inputs] == [("model", bytes(32)), ("adapter", b"a" * 32)]
    assert LaneTerms().served_as == ""
    for work in (BatchJob("echo", (b"1",), (), 1), TrainJob(bytes(32), bytes(32), Recipe("lora"), 1)):
        with pytest.raises(FallowError, match="no lane"):
            shape_of(work).lane(work)
