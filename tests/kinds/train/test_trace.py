"""How a round is cut into links, and what a claim must hold."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.kinds.chain import MAX_TRACES_KEPT, MIN_TRACES_KEPT, room_bytes
from fallow.kinds.train.tasks import TrainAudit, TrainParams, TrainRound, TrainValue
from fallow.kinds.train.trace import (
    MAX_FILES,
    MAX_TRACE_BYTES,
    STATE_BYTES,
    SUM_BYTES,
    Cut,
    audit_task,
    cut_for,
    expected_answer,
    kept_bytes,
    link_at,
    moments_name,
    part_names,
    read_trace,
    sum_name,
    theta_name,
    trace_bytes_for,
    unit_rows,
)
from fallow.wire import codec
from fallow.wire.claims import output_hash
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Part, Recipe, TaskOutput, TaskSpec

STEPS = st.integers(1, 400)
BATCHES = st.integers(1, 40)
LIMITS = st.integers(0, 1 << 40) | st.just(DEFAULT_TRACE_BYTES)


def recipe(steps: int = 4, batch: int = 2, trace_bytes: int = DEFAULT_TRACE_BYTES) -> Recipe:
    return Recipe("lora", inner_steps=steps, batch_sequences=batch, arithmetic="exact", trace_bytes=trace_bytes)


def word(name: str) -> bytes:
    return name.encode().ljust(32, b".")[:32]


def claimed(steps: int, cut: Cut) -> TaskOutput:
    names = sorted([*part_names(steps, cut), "update", "carry"])
    value = codec.encode(TrainValue(word("state"), "", 1))
    return TaskOutput(value, tuple(Part(name, word(name), 10) for name in names))


def round_spec(recipe: Recipe) -> tuple[TaskSpec, TrainRound]:
    params = TrainRound(recipe, 0, 0, 1, (), evaluate=False, checkpoint=False)
    return TaskSpec("train", codec.encode(params), (Part("model", word("model"), 1),), 3, 7, 60, 1), params


@given(STEPS, BATCHES, st.integers(1, 1 << 34), LIMITS)
def test_a_cut_fits_what_is_kept_and_covers_every_step_and_sequence_once(
    steps: int, batch: int, parameters: int, limit: int
) -> None:
    cut = cut_for(recipe(steps, batch, limit), parameters)
    assert cut.units == 1 or cut.every == 1
    assert len(part_names(steps, cut)) <= MAX_FILES
    kept = len(cut.states(steps)) * STATE_BYTES + steps * (cut.units - 1) * SUM_BYTES
    assert kept * parameters == kept_bytes(steps, parameters, cut)
    assert kept * parameters <= min(limit, MAX_TRACE_BYTES) or cut.every == steps
    done: list[tuple[int, int]] = []
    for index in range(cut.links(steps)):
        link = link_at(index, steps, cut)
        for step in range(link.first, link.last):
            done += [(step, row) for unit in range(link.unit, link.until) for row in unit_rows(batch, cut.units, unit)]
    assert done == [(step, row) for step in range(steps) for row in range(batch)]


@given(STEPS, BATCHES, st.integers(1, 1 << 34))
def test_a_claim_tells_how_it_was_cut(steps: int, batch: int, parameters: int) -> None:
    cut = cut_for(recipe(steps, batch), parameters)
    trace = read_trace(recipe(steps, batch), claimed(steps, cut))
    assert trace is not None
    assert (trace.cut, trace.links) == (cut, cut.links(steps))


@given(STEPS, BATCHES)
def test_links_hang_together(steps: int, batch: int) -> None:
    """What a link gives is what the next one needs, so that no gap is left between them."""
    cut = cut_for(recipe(steps, batch), 1)
    have = {theta_name(0), moments_name(0, steps)}
    for index in range(cut.links(steps)):
        link = link_at(index, steps, cut)
        assert set(link.needs) <= have
        assert not set(link.gives) & have
        have |= set(link.gives)
    assert {theta_name(steps), "carry"} <= have


def test_small_models_are_cut_by_micro_batch_and_large_ones_by_steps() -> None:
    lora, small, large = 460_800, 3_300_000, 134_515_008
    assert cut_for(recipe(100, 2), lora) == Cut(2, 1)
    assert cut_for(recipe(100, 16), lora) == Cut(4, 1)
    assert cut_for(recipe(100, 2), small) == Cut(1, 2)
    assert cut_for(recipe(100, 2), large) == Cut(1, 100)


def test_a_model_that_is_trained_in_full_gets_the_room_that_micro_batches_need() -> None:
    small, large = 3_297_536, 134_515_008
    wanted = recipe(100, 8)
    limit = trace_bytes_for(wanted, small)
    assert limit == small * (101 * STATE_BYTES + 100 * SUM_BYTES)
    assert cut_for(recipe(100, 8, limit), small) == Cut(2, 1)
    assert cut_for(recipe(100, 8, limit - 1), small) == Cut(1, 1)
    assert trace_bytes_for(wanted, large) == large * 2 * STATE_BYTES, "its micro-batches would take 270 GB"


@given(STEPS, BATCHES, st.integers(1, 1 << 34))
def test_room_is_asked_for_to_the_byte_and_never_for_a_coarser_cut(steps: int, batch: int, parameters: int) -> None:
    before = cut_for(recipe(steps, batch), parameters)
    limit = trace_bytes_for(recipe(steps, batch), parameters)
    if limit <= MAX_TRACE_BYTES:
        cut = cut_for(recipe(steps, batch, limit), parameters)
        assert kept_bytes(steps, parameters, cut) == limit
        assert cut.links(steps) >= before.links(steps)
        assert cut == before or limit > DEFAULT_TRACE_BYTES


@given(LIMITS)
def test_the_room_holds_what_is_kept_and_what_is_being_made(each: int) -> None:
    kept = MAX_TRACES_KEPT if MAX_TRACES_KEPT * each <= DEFAULT_TRACE_BYTES else MIN_TRACES_KEPT
    assert (kept + 1) * each <= room_bytes(each) <= (MAX_TRACES_KEPT + 1) * each
    assert room_bytes(each) <= each + max(MIN_TRACES_KEPT * each, DEFAULT_TRACE_BYTES)
    assert room_bytes((1 << 63) - 1) < 1 << 63, "an order can say it"


def test_a_recipe_of_before_is_cut_as_it_was() -> None:
    """Stored by a build that knew no `trace_bytes`, nor what was added since: fewer fields, and the same links."""
    raw = msgspec.msgpack.decode(codec.encode(recipe(100, 2)))
    place = Recipe.__struct_fields__.index("trace_bytes")
    assert raw[place] == DEFAULT_TRACE_BYTES
    old = codec.recall(Recipe, msgspec.msgpack.encode(raw[:place]))
    assert old == recipe(100, 2)
    assert cut_for(old, 3_300_000) == Cut(1, 2)


@pytest.mark.parametrize("cut", [Cut(2, 1), Cut(1, 1), Cut(1, 3)])
def test_a_claim_with_a_part_more_or_less_is_no_commitment(cut: Cut) -> None:
    good = claimed(6, cut)
    assert read_trace(recipe(6), good) is not None
    for index, part in enumerate(good.parts):
        fewer = TaskOutput(good.value, (*good.parts[:index], *good.parts[index + 1 :]))
        assert read_trace(recipe(6), fewer) is None, part.name
    for name in ("trace/theta/0000099", "trace/x", sum_name(0, 7), "update"):
        more = TaskOutput(good.value, (*good.parts, Part(name, word("x"), 1)))
        assert read_trace(recipe(6), more) is None, name
    assert read_trace(recipe(6), TaskOutput(b"nonsense", good.parts)) is None


@pytest.mark.parametrize("steps", [0, 1, 5, 7])
def test_a_commitment_to_another_number_of_steps_is_none(steps: int) -> None:
    assert read_trace(recipe(steps), claimed(6, Cut(2, 1))) is None


@pytest.mark.parametrize("steps", [1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("cut", [Cut(1, 1), Cut(1, 2), Cut(2, 1)])
def test_a_claim_of_more_steps_than_anybody_goes_through_is_none(steps: int, cut: Cut) -> None:
    """A stranger's receipt has such a recipe; whoever reads it must not go through the steps."""
    assert read_trace(recipe(steps), claimed(4, cut)) is None


def test_more_units_than_sequences_are_none() -> None:
    assert read_trace(recipe(4, 2), claimed(4, Cut(4, 1))) is None


def test_an_audit_starts_from_what_was_claimed_and_does_not_hold_the_answer() -> None:
    trace = read_trace(recipe(), claimed(4, Cut(2, 1)))
    assert trace is not None
    spec, params = round_spec(recipe())
    task = audit_task(spec, params, trace, (2, 5), 11)
    assert (task.seed, task.units, task.kind) == (spec.seed, 11, "train")
    assert codec.decode(TrainParams, task.params) == TrainAudit(params, 2, 1, (2, 5))
    names = [part.name for part in task.inputs]
    assert names == [
        "model", moments_name(2, 4), sum_name(2, 0), theta_name(1), theta_name(2), theta_name(4)
    ]  # fmt: skip
    answers = {trace.parts[name].blob for name in (sum_name(1, 0), theta_name(3), moments_name(3, 4), "update")}
    assert not answers & {part.blob for part in task.inputs}


@pytest.mark.parametrize("name", [sum_name(1, 0), theta_name(3), moments_name(3, 4), "update", theta_name(0)])
def test_the_expected_answer_changes_with_everything_that_is_checked(name: str) -> None:
    good = claimed(4, Cut(2, 1))
    changed = TaskOutput(
        good.value, tuple(msgspec.structs.replace(p, blob=word("!")) if p.name == name else p for p in good.parts)
    )
    hashes: list[bytes] = []
    for output in (good, changed):
        trace = read_trace(recipe(), output)
        assert trace is not None
        hashes.append(output_hash(expected_answer(trace, (2, 5))))
    assert hashes[0] != hashes[1]


def test_a_round_of_one_link_is_done_again_whole() -> None:
    link = link_at(0, 100, Cut(1, 100))
    assert (link.first, link.last, link.gives) == (0, 100, (theta_name(100), "carry"))
