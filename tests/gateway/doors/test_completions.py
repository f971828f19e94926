"""Plain completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fallow.errors import FallowError
from fallow.gateway.doors.completions import CompletionDoor, CompletionRequest
from fallow.gateway.doors.door import Finished, Naming
from fallow.gateway.doors.fields import parse
from fallow.kinds.generate.tasks import GenerateValue


def body(**more: Any) -> bytes:
    return json.dumps({"model": "m", **more}).encode()


def test_each_prompt_is_a_task_and_each_of_its_answers_echoes_it() -> None:
    asked = CompletionDoor().read(body(prompt=["a", "b"], n=2, echo=True))
    assert ([task.prompt for task in asked.tasks(100)], asked.alike) == (["a", "b"], 2)
    answer = Finished(GenerateValue("!", "stop", 1, 1), "r")
    told = asked.reply(Naming("1", "m", 0)).whole([answer] * 4)
    assert [choice["text"] for choice in told["choices"]] == ["a!", "a!", "b!", "b!"]


@pytest.mark.parametrize("prompt", ["", [], ["a", ""], [1, 2], [[1], [2]], ["a"] * 17, None])
def test_prompts_that_are_none_or_too_many_are_refused(prompt: Any) -> None:
    with pytest.raises(FallowError, match="prompt"):
        parse(CompletionRequest, body(prompt=prompt)).tasks(100)
