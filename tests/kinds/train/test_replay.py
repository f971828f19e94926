"""What is drawn of a round, what it must give, and what is said of it."""

from __future__ import annotations

import msgspec
import pytest
from tests.kinds.replaying import RECIPE, a_round, of_task, planned, refused
from tests.kinds.train.test_trace import claimed, round_spec, word

from fallow.kinds.replay import Piece
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound
from fallow.kinds.train.trace import Cut, theta_name
from fallow.rules.replay import ALL_LINKS, differences, plan, report
from fallow.wire import codec
from fallow.wire.messages import EXACT
from fallow.wire.receipts import TaskWork
from fallow.wire.tasks import Part, TaskOutput, TaskSpec


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


@pytest.mark.parametrize("field", ["inner_steps", "batch_sequences", "sequence_tokens"])
@pytest.mark.parametrize("value", [0, 1 << 63])
def test_a_huge_recipe_is_refused_before_anything_is_counted(field: str, value: int) -> None:
    spec, params = round_spec(msgspec.structs.replace(RECIPE, **{field: value}))
    task = msgspec.structs.replace(spec, params=codec.encode(params))
    for output in (claimed(4, Cut(1, 1)), claimed(4, Cut(1, 2))):
        assert refused(of_task(task, output)).code == "E1707"


def test_a_claim_without_its_chain_is_refused() -> None:
    made = a_round()
    assert isinstance(made.work, TaskWork)
    assert refused(of_task(made.work.task, TaskOutput(made.work.output.value, ()))).code == "E1707"
