"""What every kind has in common whose work is done again."""

from __future__ import annotations

from tests.kinds.replaying import a_round

from fallow.kinds.registry import KINDS
from fallow.kinds.replay import Difference, Piece, ReplayPlan, Report
from fallow.rules.replay import ALL_LINKS, plan
from fallow.wire.messages import EXACT
from fallow.wire.tasks import TaskOutput, TaskSpec


def test_a_plan_says_which_links_its_pieces_hold() -> None:
    found = plan(a_round(), ALL_LINKS, b"seed")
    assert isinstance(found, ReplayPlan)
    assert found.drawn == tuple(range(found.links))
    assert ReplayPlan((), EXACT, 0, Report("", (), "", {})).drawn == ()


def test_values_are_compared_as_they_are_unless_a_kind_knows_better() -> None:
    side = KINDS["train"].replay
    assert side is not None
    piece = Piece(TaskSpec("train", b"", (), 0, 1, 60, 1), TaskOutput(b"\1", ()))
    assert side.compared(piece, b"\2") == [Difference("the value", "01", "02")]
    assert side.ram_bytes(1 << 30) == 0
