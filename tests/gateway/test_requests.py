"""What a request may say, and what it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError
from fallow.gateway.requests import ChatRequest, CompletionRequest, parse, prompt_bytes

TURNS = [{"role": "user", "content": "Hi"}]


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": TURNS, **more}).encode()


def test_a_chat_becomes_a_task() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    body = chat(messages=turns, max_completion_tokens=9, temperature=0.25, top_p=0.5, stop="x")
    task = parse(ChatRequest, body).task(4096)
    assert [(turn.role, turn.content) for turn in task.turns] == [("system", "Be kind."), ("user", "ab")]
    assert (task.max_tokens, task.temperature, task.top_p, task.stop) == (9, "0.25", "0.5", ("x",))
    assert prompt_bytes(task) >= len("Be kind.ab")


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"temperature": 3},
        {"temperature": "NaN"},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"messages": [{"role": "tool", "content": "x"}]},
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
    assert parse(ChatRequest, chat()).task(4096).max_tokens == 256
    assert parse(ChatRequest, chat()).task(128).max_tokens == 64


def test_defaults_that_ask_for_nothing_special_pass() -> None:
    parse(ChatRequest, chat(n=1, logprobs=False, tools=None, user="me", presence_penalty=0))


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_body_does_more_than_refuse(body: bytes) -> None:
    for kind in (ChatRequest, CompletionRequest):
        with pytest.raises(FallowError):
            parse(kind, body)
