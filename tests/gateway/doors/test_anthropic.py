"""Messages through Anthropic's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from tests.gateway.clients import CALL, PARAMETERS, TURNS
from tests.gateway.steward_stub import WORDS, door


async def test_anthropic_messages(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key):
        api = anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0, timeout=20)
        told = await api.messages.create(model="countdown", max_tokens=3, messages=TURNS, system="Be kind.")
        assert told.content[0].type == "text"
        assert (told.content[0].text, told.stop_reason) == ("9 8 7 ", "max_tokens")
        assert (told.usage.input_tokens, told.usage.output_tokens) == (7, 3)
        async with api.messages.stream(model="countdown", max_tokens=30, messages=TURNS) as stream:
            pieces = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
        assert (pieces, final.stop_reason, final.usage.output_tokens) == (WORDS, "end_turn", 10)
        with pytest.raises(anthropic.NotFoundError):
            await api.messages.create(model="claude", max_tokens=3, messages=TURNS)
        with pytest.raises(anthropic.BadRequestError, match="top_k"):
            await api.messages.create(model="countdown", max_tokens=3, messages=TURNS, extra_body={"top_k": 4})
        assert [model.id async for model in api.models.list()] == ["countdown"]
        await api.close()
    assert [turn.role for turn in steward.asked[0].turns] == ["system", "user"]


async def test_anthropic_tools(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key):
        api = anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0, timeout=20)
        steward.words = CALL
        tools: Any = [{"name": "weather", "input_schema": PARAMETERS}]
        async with api.messages.stream(
            model="countdown", max_tokens=30, messages=TURNS, tools=tools, tool_choice={"type": "any"}
        ) as stream:
            final = await stream.get_final_message()
        assert [block.type for block in final.content] == ["text", "tool_use"]
        used: Any = final.content[1]
        assert (used.name, used.input, final.stop_reason) == ("weather", {"city": "Z\u00fcrich"}, "tool_use")
        assert json.loads(steward.asked[0].guide)["calls"] == "required"
        steward.words = WORDS
        history: Any = [
            *TURNS,
            {"role": "assistant", "content": [block.to_dict() for block in final.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "sunny"}]},
        ]
        await api.messages.create(model="countdown", max_tokens=30, messages=history, tools=tools)
        assert [(turn.role, turn.content) for turn in steward.asked[-1].turns] == [
            ("user", "Count down."), ("assistant", "Let me see. "), ("tool", "sunny"),
        ]  # fmt: skip
        await api.close()
