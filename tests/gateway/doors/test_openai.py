"""What OpenAI's doors share: events, usage, and errors, which those of others are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fallow.errors import CODES, fail
from fallow.gateway.doors.chat import ChatReply
from fallow.gateway.doors.completions import CompletionReply
from fallow.gateway.doors.door import Finished, Naming, Reply
from fallow.gateway.doors.openai import DONE, usage
from fallow.gateway.doors.registry import DOORS
from fallow.kinds.generate.tasks import GenerateValue

ANSWER = Finished(GenerateValue("Hello", "stop", 3, 2), "r_1")
NAMING = Naming("17ab", "m", 17_000)


def events(data: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_usage_adds_up() -> None:
    assert usage([ANSWER]) == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert usage([ANSWER, ANSWER]) == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}


@pytest.mark.parametrize("reply", [ChatReply(NAMING, False, True), CompletionReply(NAMING, [""], True)])
def test_a_stream_has_one_id_from_start_to_end(reply: Reply) -> None:
    data = reply.opening() + reply.piece(0, "Hel") + reply.piece(0, "lo") + reply.ended(0, ANSWER)
    data += reply.closing([ANSWER])
    assert data.endswith(DONE)
    found = events(data)
    assert len({event["id"] for event in found}) == 1
    assert found[-1]["usage"] == usage([ANSWER])
    assert found[-2]["receipt"] == "r_1"


def test_a_broken_stream_ends_with_an_error_and_the_mark() -> None:
    data = ChatReply(NAMING, False, False).broken(fail("E1906", "gone"))
    assert data.endswith(DONE)
    assert "error" in events(data)[0]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.path)
@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_has_a_status_and_says_where_the_money_is(code: str, door: Any) -> None:
    status, body = door.refusal(fail(code, "what happened"))
    assert 400 <= status < 600
    assert "what happened" in json.dumps(body)
    assert (body["error"] if isinstance(body["error"], dict) else body)["fallow"]["money"]
