"""What is read of bodies, and what is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.clients import TURNS, with_openai

from fallow.errors import FallowError
from fallow.gateway.doors.chat import ChatRequest
from fallow.gateway.doors.door import Door
from fallow.gateway.doors.fields import parse
from fallow.gateway.doors.registry import DOORS
from fallow.kinds.generate.tasks import Generate

HI = [{"role": "user", "content": "Hi"}]


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HI, **more}).encode()


def test_a_chat_becomes_a_task() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    body = chat(messages=turns, max_completion_tokens=9, temperature=0.25, top_p=0.5, stop="x")
    (task,) = parse(ChatRequest, body).tasks(4096)
    assert [(turn.role, turn.content) for turn in task.turns] == [("system", "Be kind."), ("user", "ab")]
    assert (task.max_tokens, task.temperature, task.top_p, task.stop) == (9, "0.25", "0.5", ("x",))


@pytest.mark.parametrize(
    "more",
    [
        {"n": 17},
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"response_format": {"type": "xml"}},
        {"temperature": 3},
        {"temperature": "NaN"},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"messages": [{"role": "function", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"model": ""},
    ],
)
def test_what_is_wrong_or_not_supported_is_named(more: dict[str, Any]) -> None:
    with pytest.raises(FallowError) as caught:
        parse(ChatRequest, chat(**more))
    assert caught.value.code == "E1904"
    assert next(iter(more)) in caught.value.what


def test_an_answer_of_no_stated_length_leaves_room_for_the_prompt() -> None:
    assert parse(ChatRequest, chat()).tasks(4096)[0].max_tokens == 256
    assert parse(ChatRequest, chat()).tasks(128)[0].max_tokens == 64


def test_defaults_that_ask_for_nothing_special_pass() -> None:
    parse(ChatRequest, chat(n=1, logprobs=False, tools=None, user="me", presence_penalty=0))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
NAMES = [
    "model",
    "messages",
    "prompt",
    "input",
    "tools",
    "role",
    "content",
    "type",
    "max_tokens",
    "stop",
    "n",
    "options",
]
NAMED = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.path)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode) | NAMED.map(json.dumps).map(str.encode))
def test_whatever_the_body_it_is_understood_or_refused(door: Door, body: bytes) -> None:
    understood: list[Generate] = []
    with suppress(FallowError):
        understood = door.read(body).tasks(4096)
    assert all(isinstance(task, Generate) for task in understood)


async def test_what_would_be_ignored_is_refused_by_name(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (_, api):
        extra: dict[str, Any]
        for extra in (
            {"logprobs": True}, {"top_k": 5}, {"min_p": 0.1}, {"audio": {"voice": "x"}}, {"store": True},
            {"response_format": {"type": "json_object", "other": 1}}, {"made_up": 1}, {"functions": [{"name": "f"}]},
            {"stop": ["x"] * 17}, {"stop": "x" * 3000}, {"stop": [""]}, {"tool_choice": "required"},
            {"messages": [{"role": "user", "content": "x", "audio": {"id": "a"}}]}, {"logit_bias": {"x": 1}},
        ):  # fmt: skip
            with pytest.raises(openai.BadRequestError) as refused:
                await api.chat.completions.create(model="countdown", messages=TURNS, extra_body=extra)
            assert next(iter(extra)).split(".")[0] in refused.value.message
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            await api.completions.create(model="countdown", prompt="x", logprobs=0)
        with pytest.raises(openai.BadRequestError, match="token numbers"):
            await api.completions.create(model="countdown", prompt=[1, 2])
