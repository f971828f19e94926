"""Responses through the official client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.gateway.clients import CALL, PARAMETERS, SAID, with_openai
from tests.gateway.steward_stub import WORDS


async def test_responses(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        told = await api.responses.create(model="countdown", input="Count.", instructions="Be kind.", temperature=0)
        assert (told.output_text, told.status) == (SAID, "completed")
        assert told.usage is not None
        assert told.usage.output_tokens == 10
        assert [turn.role for turn in steward.asked[0].turns] == ["system", "user"]
        cut = await api.responses.create(model="countdown", input="Count.", max_output_tokens=2)
        assert (cut.status, cut.incomplete_details and cut.incomplete_details.reason) == (
            "incomplete", "max_output_tokens",
        )  # fmt: skip
        async with api.responses.stream(model="countdown", input="Count.") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert final.output_text == SAID
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"


async def test_responses_call_tools(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (steward, api):
        steward.words = CALL
        tool: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
        async with api.responses.stream(model="countdown", input="?", tools=[tool], max_output_tokens=20) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert [item.type for item in final.output] == ["message", "function_call"]
        called: Any = final.output[1]
        assert json.loads(called.arguments) == {"city": "Z\u00fcrich"}
        steward.words = WORDS
        history: Any = [
            {"role": "user", "content": "?"},
            *[item.model_dump(exclude={"parsed_arguments"}) for item in final.output],
            {"type": "function_call_output", "call_id": called.call_id, "output": "sunny"},
        ]
        await api.responses.create(model="countdown", input=history, tools=[tool])
        assert [turn.role for turn in steward.asked[-1].turns] == ["user", "assistant", "assistant", "tool"]


@pytest.mark.parametrize("name", ["", "n" * 201])
async def test_a_call_in_the_history_names_its_function(tmp_path: Path, name: str) -> None:
    """A fuzzer's: the answer was a 500."""
    async with with_openai(tmp_path) as (_, api):
        history: Any = [{"type": "function_call", "call_id": "", "name": name, "arguments": ""}]
        with pytest.raises(openai.BadRequestError) as refused:
            await api.responses.create(model="countdown", input=history)
        assert "name of a function" in refused.value.message
