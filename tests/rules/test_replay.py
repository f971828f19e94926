"""What is drawn of a receipt's work, what it must give, and what is said of it; and receipts made to hurt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kinds.train.test_trace import claimed, round_spec, word
from tests.wire.parties import REQUESTER, lane_receipt, receipt

from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.kinds.replay import NoReplay, Piece, ReplayPlan
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound
from fallow.kinds.train.trace import Cut, moments_name, sum_name, theta_name
from fallow.rules.replay import ALL_LINKS, MAX_TOKENS, differences, plan, report, served_with
from fallow.wire import codec
from fallow.wire.documents import Order
from fallow.wire.messages import EXACT
from fallow.wire.receipts import LaneWork, Receipt, TaskWork
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec

SEED = b"s" * 32
RECIPE = Recipe("lora", inner_steps=100, batch_sequences=2, sequence_tokens=64, rounds=3, arithmetic="exact")
LOGITS = b"l" * 32
FINE = Cut(2, 1)


def of_task(task: TaskSpec, output: TaskOutput, numerics: str = "") -> Receipt:
    """Signatures are checked elsewhere."""
    made = receipt()
    order = msgspec.structs.replace(codec.decode(Order, made.order.body), numerics=numerics)
    return msgspec.structs.replace(made, work=TaskWork(task, output), order=REQUESTER.sign(order))


def a_round(recipe: Recipe = RECIPE, cut: Cut = FINE, **changes: Any) -> Receipt:
    spec, params = round_spec(recipe)
    params = msgspec.structs.replace(params, **changes)
    output = claimed(recipe.inner_steps, cut)
    return of_task(msgspec.structs.replace(spec, params=codec.encode(params)), output)


def planned(of: Receipt, links: int = 2) -> ReplayPlan:
    found = plan(of, links, SEED)
    assert isinstance(found, ReplayPlan), found
    return found


def refused(of: Receipt, links: int = 2) -> NoReplay:
    found = plan(of, links, SEED)
    assert isinstance(found, NoReplay), found
    return found


def answered(value: GenerateValue, asked: int = 9, numerics: str = "", *, lane: bool = False) -> Receipt:
    params = codec.encode(Generate((), "hello", asked))
    if lane:
        order = msgspec.structs.replace(codec.decode(Order, receipt().order.body), kind="generate")
        work = LaneWork(1, params, 4, codec.encode(value), 5)
        return msgspec.structs.replace(lane_receipt(), work=work, order=REQUESTER.sign(order))
    task = TaskSpec("generate", params, (Part("model", word("model"), 1),), 4, 9, 60, 1 << 30)
    return of_task(task, TaskOutput(codec.encode(value), ()), numerics)


# rounds ---------------------------------------------------------------------------------------------------------------


def test_links_are_drawn_by_the_seed_and_start_from_what_was_claimed() -> None:
    found = planned(a_round())
    (piece,) = found.pieces
    assert found == planned(a_round())
    assert plan(a_round(), 2, b"t" * 32) != found
    assert len(set(found.drawn)) == 2
    params = codec.decode(TrainParams, piece.task.params)
    assert isinstance(params, TrainAudit)
    assert params.links == found.drawn
    assert (found.numerics, found.tokens) == (EXACT, 2 * 64)
    names = {part.name for part in piece.task.inputs}
    assert {"model", theta_name(100)} <= names
    assert len(names) <= 2 + 2 * 3


def test_all_links_are_done_in_pieces_that_a_task_can_hold() -> None:
    found = planned(a_round(), ALL_LINKS)
    assert found.drawn == tuple(range(200))
    assert [len(piece.links) for piece in found.pieces] == [64, 64, 64, 8]
    assert found.tokens == 100 * 2 * 64


def test_what_is_proven_is_what_economics_says() -> None:
    said = report(planned(a_round()))
    assert said.odds == {"skips_tenth_of_steps": "19.0 %", "alters_one_gradient": "1.0 %"}
    assert "skipped 10 % of its steps would have been found with 19.0 %" in said.proves
    assert "2 of the 200 links of round 1 of 3, shard 1 of 1, 128 tokens" in said.redone
    assert said.not_checked[0] == "the other 198 links of the round"
    whole = report(planned(a_round(), ALL_LINKS))
    assert "Every link" in whole.proves
    assert not any("other 0 links" in one for one in whole.not_checked)
    assert ", 194 more;" in whole.redone


@pytest.mark.parametrize(
    ("cut", "skip", "flip"), [(Cut(1, 100), "100.0 %", "100.0 %"), (Cut(1, 10), "20.0 %", "20.0 %")]
)
def test_coarse_links_are_worth_more(cut: Cut, skip: str, flip: str) -> None:
    """Ten steps are a tenth of the round, and may all lie in one link of ten."""
    said = report(planned(a_round(cut=cut)))
    assert said.odds == {"skips_tenth_of_steps": skip, "alters_one_gradient": flip}


def test_what_a_link_does_not_hold_is_named() -> None:
    said = " ".join(report(planned(a_round(evaluate=True, checkpoint=True))).not_checked)
    assert "the loss" in said
    assert "checkpoint" in said


@pytest.mark.parametrize(
    ("field", "where"),
    [("state", "shared state"), ("theta", "first parameters"), ("moments", "first state"), ("update", "the update")],
)
def test_everything_that_an_audit_checks_is_compared(field: str, where: str) -> None:
    piece = planned(a_round()).pieces[0]
    checked = codec.decode(TrainChecked, piece.expected.value)
    other = TaskOutput(codec.encode(msgspec.structs.replace(checked, **{field: word("!")})), ())
    (row,) = differences(piece, other)
    assert where in row.where
    assert row.found == word("!").hex()
    assert differences(piece, piece.expected) == ()


def test_the_link_that_is_false_is_named() -> None:
    piece = planned(a_round()).pieces[0]
    checked = codec.decode(TrainChecked, piece.expected.value)
    links = (checked.links[0], tuple(word("?") for _ in checked.links[1]))
    (row,) = differences(piece, TaskOutput(codec.encode(msgspec.structs.replace(checked, links=links)), ()))
    assert row.where == f"link {piece.links[1]}"
    coarser = msgspec.structs.replace(checked, units=1, every=7)
    (cut,) = differences(piece, TaskOutput(codec.encode(coarser), ()))
    assert "every 7 steps" in cut.found


# whole tasks ----------------------------------------------------------------------------------------------------------


def test_a_finishing_task_is_done_again_whole() -> None:
    task = TaskSpec("train", codec.encode(TrainFinish(RECIPE, ())), (), 0, 1, 60, 1)
    output = TaskOutput(b"value", (Part("adapter/x", word("x"), 1),))
    found = planned(of_task(task, output))
    assert found.pieces == (Piece(task, output),)
    assert "finishing task" in report(found).redone
    (row,) = differences(found.pieces[0], TaskOutput(b"value", (Part("adapter/x", word("y"), 1),)))
    assert (row.where, row.expected) == ("file adapter/x", word("x").hex())
    (gone,) = differences(found.pieces[0], TaskOutput(b"value", ()))
    assert gone.found == ""


def test_a_check_is_work_too() -> None:
    _, params = round_spec(RECIPE)
    task = TaskSpec("train", codec.encode(TrainAudit(params, 2, 1, (3,))), (), 0, 1, 60, 1)
    assert "the whole check of round 1" in report(planned(of_task(task, TaskOutput(b"", ())))).redone


def test_rounds_in_fp32_are_done_again_by_their_class_of_machines_only() -> None:
    recipe = msgspec.structs.replace(RECIPE, arithmetic="fp32")
    params = TrainRound(recipe, 0, 0, 1, (), evaluate=False, checkpoint=False)
    task, output = TaskSpec("train", codec.encode(params), (), 0, 1, 60, 1), claimed(100, Cut(2, 1))
    assert refused(of_task(task, output)).code == "E1504"
    found = planned(of_task(task, output, "x86/t1"))
    assert (found.numerics, found.links) == ("x86/t1", 0)
    assert "the whole of round 1 of 3" in report(found).redone


def test_an_answer_with_logits_is_exact_and_others_need_their_class() -> None:
    exact = GenerateValue("hi", "stop", 3, 4, LOGITS)
    found = planned(answered(exact))
    assert (found.numerics, found.tokens, found.names_inputs) == (EXACT, 7, True)
    assert "3 tokens read, 4 made, with the logits of each" in report(found).redone
    plain = msgspec.structs.replace(exact, logits=b"")
    assert refused(answered(plain)).code == "E1504"
    assert planned(answered(plain, numerics="x86/t1")).numerics == "x86/t1"
    cut = msgspec.structs.replace(exact, finish=CANCELLED)
    assert "cut short" in refused(answered(cut)).what


def test_what_of_an_answer_differs_is_told() -> None:
    found = planned(answered(GenerateValue("hi", "stop", 3, 4, LOGITS)))
    other = TaskOutput(codec.encode(GenerateValue("ho", "stop", 3, 4, b"m" * 32)), ())
    rows = differences(found.pieces[0], other)
    assert [row.where for row in rows] == ["the answer's text", "the answer's logits"]
    assert (rows[0].expected, rows[0].found) == ("hi", "ho")


def test_a_lane_answer_does_not_name_its_model() -> None:
    found = planned(answered(GenerateValue("hi", "stop", 3, 4, LOGITS), lane=True))
    assert not found.names_inputs
    assert any("does not name it" in one for one in report(found).not_checked)
    assert served_with(found, 128) == found._replace(shortened=None)


@pytest.mark.parametrize(("context", "limit", "said"), [(7, 4, False), (0, 4, True), (128, 9, False)])
def test_a_lane_answer_that_ends_early_is_right_where_its_context_was_full(
    context: int, limit: int, said: bool
) -> None:
    """Three tokens read and four made fill a context of seven. With more room, whoever stopped there stopped early."""
    found = served_with(planned(answered(GenerateValue("hi", "length", 3, 4, LOGITS), lane=True)), context)
    assert codec.decode(Generate, found.pieces[0].task.params).max_tokens == limit
    assert any("had to end" in one for one in report(found).not_checked) is said


def test_an_answer_as_long_as_was_asked_for_is_not_short() -> None:
    assert planned(answered(GenerateValue("hi", "length", 3, 9, LOGITS), lane=True)).shortened is None
    assert planned(answered(GenerateValue("hi", "length", 3, 4, LOGITS))).shortened is None


# receipts made to hurt ------------------------------------------------------------------------------------------------


def test_other_kinds_of_work_have_nothing_to_do_again() -> None:
    assert refused(receipt()).code == "E1504"
    assert refused(lane_receipt()).code == "E1504"


@pytest.mark.parametrize("field", ["inner_steps", "batch_sequences", "sequence_tokens"])
@pytest.mark.parametrize("value", [0, 1 << 63])
def test_a_huge_recipe_is_refused_before_anything_is_counted(field: str, value: int) -> None:
    spec, params = round_spec(msgspec.structs.replace(RECIPE, **{field: value}))
    task = msgspec.structs.replace(spec, params=codec.encode(params))
    for output in (claimed(4, Cut(1, 1)), claimed(4, Cut(1, 2))):
        assert refused(of_task(task, output)).code == "E1707"


def test_work_without_end_is_refused() -> None:
    recipe = msgspec.structs.replace(RECIPE, sequence_tokens=1 << 20, batch_sequences=4096, inner_steps=1)
    found = refused(a_round(recipe, Cut(8, 1)))
    assert found.code == "E1504"
    assert f"{MAX_TOKENS:,}" in found.what


def test_one_input_twice_is_refused_and_so_is_one_that_poses_as_a_state() -> None:
    made = a_round()
    assert isinstance(made.work, TaskWork)
    task, twice = made.work.task, Part("model", word("other"), 1)
    names = (twice.name, theta_name(100), theta_name(0), sum_name(0, 0), moments_name(0, 100))
    for name in names:
        forged = msgspec.structs.replace(task, inputs=(*task.inputs, Part(name, word("other"), 1)))
        found = plan(of_task(forged, made.work.output), ALL_LINKS, SEED)
        assert isinstance(found, NoReplay), name
        assert found.code == "E1707", name


def test_a_claim_without_its_chain_is_refused() -> None:
    made = a_round()
    assert isinstance(made.work, TaskWork)
    assert refused(of_task(made.work.task, TaskOutput(made.work.output.value, ()))).code == "E1707"


@given(st.binary(max_size=80), st.binary(max_size=80), st.sampled_from(["train", "generate", "echo", "x" * 120]))
def test_nonsense_is_refused_whatever_it_is(params: bytes, value: bytes, kind: str) -> None:
    task = TaskSpec(kind, params, (), 0, 1, 60, 1)
    assert isinstance(plan(of_task(task, TaskOutput(value, ())), 2, SEED), NoReplay)


def test_a_value_that_is_none_differs() -> None:
    task = TaskSpec("generate", b"", (), 0, 1, 60, 1)
    (row,) = differences(Piece(task, TaskOutput(b"\x01", ())), TaskOutput(b"\x02", ()))
    assert (row.where, row.expected, row.found) == ("the value", "01", "02")
