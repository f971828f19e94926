"""Committed rounds in the simulator."""

from __future__ import annotations

import msgspec
import pytest

from fallow.kinds.train.tasks import TrainAudit, TrainParams, TrainRound
from fallow.kinds.train.trace import audit_task, cut_for, expected_answer, read_trace
from fallow.rules.trust import draw_links
from fallow.sim.chain import PARAMETERS, audited, committed
from fallow.sim.work import honest_output
from fallow.wire import codec
from fallow.wire.claims import output_hash
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec

RECIPE = Recipe("lora", inner_steps=10, batch_sequences=3, arithmetic="exact")
ROUND = TrainRound(RECIPE, 1, 0, 2, (), evaluate=False, checkpoint=False)
SPEC = TaskSpec("train", codec.encode(ROUND), (Part("model", bytes(32), 1),), 0, 10, 60, 1)
LINKS = cut_for(RECIPE, PARAMETERS).links(10)


def found_false(output: TaskOutput) -> set[int]:
    """The links whose audit differs from the claim."""
    trace = read_trace(RECIPE, output)
    assert trace is not None
    false: set[int] = set()
    for index in range(trace.links):
        task = audit_task(SPEC, ROUND, trace, (index,), 1)
        if output_hash(honest_output(task)) != output_hash(expected_answer(trace, (index,))):
            false.add(index)
    return false


def test_an_honest_round_has_no_false_link() -> None:
    assert found_false(honest_output(SPEC)) == set()


@pytest.mark.parametrize("step", [0, 4, 9])
def test_a_skipped_step_breaks_all_of_its_links_and_no_other(step: int) -> None:
    assert found_false(committed(SPEC, ROUND, skipped={step})) == {3 * step, 3 * step + 1, 3 * step + 2}


@pytest.mark.parametrize("link", range(LINKS))
def test_a_flipped_element_breaks_one_link(link: int) -> None:
    assert found_false(committed(SPEC, ROUND, flipped={link})) == {link}


def test_another_update_another_start_or_another_cut_is_found_by_every_audit() -> None:
    honest = honest_output(SPEC)
    for name in ("update", "trace/theta/0000000", "trace/moments/0000000"):
        parts = tuple(msgspec.structs.replace(p, blob=b"!" * 32) if p.name == name else p for p in honest.parts)
        assert found_false(TaskOutput(honest.value, parts)) == set(range(LINKS)), name
    coarse = committed(SPEC, msgspec.structs.replace(ROUND, recipe=msgspec.structs.replace(RECIPE, batch_sequences=1)))
    assert found_false(coarse) == set(range(10))


def test_an_audit_knows_only_what_it_was_given() -> None:
    trace = read_trace(RECIPE, honest_output(SPEC))
    assert trace is not None
    drawn = draw_links(b"s" * 32, trace.links, 4)
    task = audit_task(SPEC, ROUND, trace, drawn, 1)
    params = codec.decode(TrainParams, task.params)
    assert isinstance(params, TrainAudit)
    assert audited(task, params) == expected_answer(trace, drawn)
