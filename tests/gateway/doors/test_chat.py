"""Chats through the official client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.gateway.clients import CALL, HISTORY, PARAMETERS, SAID, TOOLS, TURNS, City, with_openai


async def test_several_answers_are_told_apart(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        whole = await api.chat.completions.create(model="countdown", messages=TURNS, n=3, seed=7, max_tokens=2)
        assert [(c.index, c.message.content) for c in whole.choices] == [(n, "9 8 ") for n in range(3)]
        assert steward.seeds == [7, 8, 9]
        assert len((whole.model_extra or {})["receipts"]) == 3
        said = {0: "", 1: ""}
        stream = await api.chat.completions.create(model="countdown", messages=TURNS, n=2, stream=True)
        async for chunk in stream:
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
        assert said == {0: SAID, 1: SAID}
        many = await api.completions.create(model="countdown", prompt=["9", "8"], n=2, echo=True, max_tokens=1)
        assert [choice.text for choice in many.choices] == ["99 ", "99 ", "89 ", "89 "]


async def test_calls_of_tools_are_told_apart_from_what_is_said(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        steward.words = CALL
        whole = await api.chat.completions.create(model="countdown", messages=TURNS, tools=TOOLS, max_tokens=20)
        choice = whole.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see. ")
        assert choice.message.tool_calls is not None
        function: Any = choice.message.tool_calls[0].function  # type: ignore[union-attr]
        assert (function.name, json.loads(function.arguments)) == ("weather", {"city": "Z\u00fcrich"})
        asked = steward.asked[0]
        assert json.loads(asked.tools)[0]["function"]["parameters"] == PARAMETERS
        assert json.loads(asked.guide) == {"calls": "auto", "parallel": True}
        async with api.chat.completions.stream(model="countdown", messages=TURNS, tools=TOOLS, max_tokens=20) as stream:
            final = await stream.get_final_completion()
        streamed: Any = final.choices[0].message
        assert streamed.content == "Let me see. "
        assert json.loads(streamed.tool_calls[0].function.arguments) == {"city": "Z\u00fcrich"}
        assert final.choices[0].finish_reason == "tool_calls"


async def test_a_conversation_with_tools_reaches_the_template(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        named: Any = {"type": "function", "function": {"name": "weather"}}
        await api.chat.completions.create(model="countdown", messages=HISTORY, tools=TOOLS, tool_choice=named)
        _, said, told = steward.asked[0].turns
        calls = json.loads(said.more)["tool_calls"]
        assert calls[0]["function"] == {"name": "weather", "arguments": {"city": "Bern"}}
        assert (told.role, told.content, json.loads(told.more)) == ("tool", "sunny", {"tool_call_id": "c1"})
        assert json.loads(steward.asked[0].guide) == {"calls": {"name": "weather"}, "parallel": True}
        await api.chat.completions.create(model="countdown", messages=HISTORY, tools=TOOLS, tool_choice="none")
        assert (steward.asked[1].tools, steward.asked[1].guide) == ("", "")


async def test_structured_output_is_parsed_by_the_client(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        steward.words = ['{"name":', '"Bern"}']
        parsed = await api.chat.completions.parse(model="countdown", messages=TURNS, response_format=City)
        assert parsed.choices[0].message.parsed == City(name="Bern")
        assert json.loads(steward.asked[0].guide)["json_schema"]["required"] == ["name"]
        told = await api.responses.parse(model="countdown", input="where?", text_format=City)
        assert told.output_parsed == City(name="Bern")
        assert json.loads(steward.asked[1].guide)["json_schema"]["required"] == ["name"]


async def test_how_tokens_are_chosen_reaches_the_engine(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        await api.chat.completions.create(
            model="countdown", messages=TURNS, frequency_penalty=0.5, presence_penalty=-1, logit_bias={"7": -100},
            stop=["a", "b"], temperature=None, user="me", logprobs=False,
        )  # fmt: skip
        asked = steward.asked[0]
        assert (asked.frequency_penalty, asked.presence_penalty, asked.bias) == ("0.5", "-1", ((7, -10_000),))
        assert (asked.stop, asked.temperature) == (("a", "b"), "1")
