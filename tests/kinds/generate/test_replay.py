"""How answers are done again, and where they may end."""

from __future__ import annotations

import msgspec
import pytest
from tests.kinds.replaying import LOGITS, answered, planned, refused

from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.rules.replay import differences, report, served_with
from fallow.wire import codec
from fallow.wire.messages import EXACT
from fallow.wire.tasks import TaskOutput


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
