"""Several answers side by side."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fallow.errors import FallowError, fail
from fallow.gateway.answers import Answers, until_left
from fallow.gateway.doors.door import Finished
from fallow.gateway.lanes import ModelLane, PaidAnswer
from fallow.kinds.generate.tasks import Generate, GenerateValue


def made(count: int) -> tuple[list[PaidAnswer], Answers]:
    news = asyncio.Event()
    paid = [PaidAnswer(Generate((), "x", 9), number, "k", 1, 1, news=news) for number in range(count)]
    return paid, Answers(paid, cast(ModelLane, None))


async def test_pieces_come_as_they_come_and_each_answer_ends_once() -> None:
    paid, answers = made(2)
    for item in ("a", "b", GenerateValue("ab", "stop", 1, 2), b"\x01" * 32):
        paid[1].put(item)
    for item in ("c", GenerateValue("c", "length", 1, 1), b""):
        paid[0].put(item)
    found = [part async for part in answers.parts()]
    assert [item for index, item in found if index == 1 and isinstance(item, str)] == ["a", "b"]
    ends = {index: item for index, item in found if isinstance(item, Finished)}
    assert (ends[0].receipt, ends[1].value.text, ends[1].receipt[:2]) == ("", "ab", "r_")


async def test_one_that_fails_ends_all() -> None:
    paid, answers = made(2)
    paid[0].put("a")
    paid[1].fail(fail("E1906", "gone"))
    with pytest.raises(FallowError, match="gone"):
        _ = [part async for part in answers.parts()]


async def test_a_client_that_leaves_ends_what_was_not_there_yet() -> None:
    _, answers = made(2)
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    await until_left(receive, answers)
    with pytest.raises(FallowError, match="left"):
        _ = [part async for part in answers.parts()]
