"""What can be told of an answer from the question alone."""

from __future__ import annotations

from typing import Any

import pytest

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.kinds.lane import Asked
from fallow.kinds.registry import kind_named, lane_side
from fallow.wire.codec import decode, encode

SIDE = lane_side("generate")


def generate(max_tokens: int, resume: str = "") -> bytes:
    return encode(Generate((ChatTurn("user", "count down"),), "", max_tokens, resume=resume))


def test_the_most_that_a_task_costs_is_known_before_it_is_sent() -> None:
    assert lane_side("echo").most_units(b"anything") == 1
    assert SIDE.most_units(generate(10)) >= len("count down") + 10
    with pytest.raises(FallowError) as malformed:
        SIDE.most_units(b"nonsense")
    assert malformed.value.code == "E1102"
    with pytest.raises(FallowError) as endless:
        SIDE.most_units(generate(0))
    assert endless.value.code == "E1904"


def test_what_was_passed_on_is_resumed_and_counted() -> None:
    asked = decode(Generate, SIDE.resumed(generate(10, resume="9 "), "8 7 ", 2))
    assert (asked.resume, asked.max_tokens) == ("9 8 7 ", 8)


HONEST = GenerateValue("9 8", "stop", 7, 2)


@pytest.mark.parametrize(
    ("lie", "asked", "units"),
    [
        ({"completion_tokens": 11}, {}, 18),
        ({"prompt_tokens": 5_000}, {}, 5_002),
        ({}, {}, 10),
        ({"text": "8"}, {}, 9),
        ({"finish": CANCELLED}, {}, 9),
        ({"finish": CANCELLED, "completion_tokens": 3}, {"unwanted": True}, 10),
        ({}, {"exact": True}, 9),
        ({"logits": b"short"}, {}, 9),
    ],
)
def test_a_meter_that_was_run_is_seen(lie: dict[str, Any], asked: dict[str, Any], units: int) -> None:
    question = Asked(generate(10), "9 8", 2)
    assert SIDE.fits(question, encode(HONEST), 9)
    value = GenerateValue(**({name: getattr(HONEST, name) for name in HONEST.__struct_fields__} | lie))
    assert not SIDE.fits(question._replace(**asked), encode(value), units)
    assert not SIDE.fits(question, b"nonsense", 9)


def test_who_cancelled_pays_for_what_was_told() -> None:
    value = encode(GenerateValue("9 8", CANCELLED, 7, 2))
    assert SIDE.fits(Asked(generate(10), "9 8", 2, unwanted=True), value, 9)
    assert SIDE.cut_short(value)
    assert not SIDE.cut_short(encode(HONEST))


def test_a_line_of_text_is_a_prompt_and_costs_what_it_may_read_and_make() -> None:
    kind = kind_named("generate")
    params = kind.read("äöü", {"max_tokens": 10})
    assert decode(Generate, params).turns == (ChatTurn("user", "äöü"),)
    assert kind.units(params) == 6 + 64 + 10
    assert kind.shown(encode(HONEST)) == "9 8"
