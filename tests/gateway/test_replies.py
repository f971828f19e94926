"""Answers and errors as OpenAI's clients read them."""

from __future__ import annotations

import json

import pytest

from fallow.errors import CODES, fail
from fallow.gateway.replies import DONE, ReplyFormat, error_reply, usage
from fallow.kinds.generate.tasks import GenerateValue

VALUE = GenerateValue("Hello", "stop", 3, 2)


def events(data: bytes) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_usage_adds_up() -> None:
    assert usage(VALUE) == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("chat", [True, False])
def test_a_stream_has_one_id_from_start_to_end(chat: bool) -> None:
    shape = ReplyFormat(chat, "id-1", "m", 17)
    data = shape.opening() + shape.piece("Hel") + shape.piece("lo") + shape.closing(VALUE, "r_1", True)
    assert data.endswith(DONE)
    found = events(data)
    assert {event["id"] for event in found} == {"id-1"}
    assert found[-1]["usage"] == usage(VALUE)
    assert found[-2]["receipt"] == "r_1"


def test_a_broken_stream_ends_with_an_error_and_the_mark() -> None:
    data = ReplyFormat(True, "id", "m", 1).broken(fail("E1906", "gone"))
    assert data.endswith(DONE)
    assert "error" in events(data)[0]


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_has_a_status_and_says_where_the_money_is(code: str) -> None:
    status, body = error_reply(fail(code, "what happened"))
    assert 400 <= status < 600
    assert body["error"]["message"] == "what happened"
    assert body["error"]["fallow"]["money"]
