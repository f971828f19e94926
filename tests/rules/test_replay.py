"""What is done again of a receipt's work, and receipts made to hurt."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.kinds.replaying import RECIPE, SEED, a_round, of_task, refused
from tests.kinds.train.test_trace import word
from tests.wire.parties import lane_receipt, receipt

from fallow.kinds.replay import NoReplay, Piece
from fallow.kinds.train.trace import Cut, moments_name, sum_name, theta_name
from fallow.rules.replay import ALL_LINKS, MAX_TOKENS, differences, plan
from fallow.wire.receipts import TaskWork
from fallow.wire.tasks import Part, TaskOutput, TaskSpec


def test_other_kinds_of_work_have_nothing_to_do_again() -> None:
    assert refused(receipt()).code == "E1504"
    assert refused(lane_receipt()).code == "E1504"


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


@given(st.binary(max_size=80), st.binary(max_size=80), st.sampled_from(["train", "generate", "echo", "x" * 120]))
def test_nonsense_is_refused_whatever_it_is(params: bytes, value: bytes, kind: str) -> None:
    task = TaskSpec(kind, params, (), 0, 1, 60, 1)
    assert isinstance(plan(of_task(task, TaskOutput(value, ())), 2, SEED), NoReplay)


def test_a_value_that_is_none_differs() -> None:
    task = TaskSpec("generate", b"", (), 0, 1, 60, 1)
    (row,) = differences(Piece(task, TaskOutput(b"\x01", ())), TaskOutput(b"\x02", ()))
    assert (row.where, row.expected, row.found) == ("the value", "01", "02")
