"""Ollama's paths through its own client."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import ollama
import pytest
from tests.gateway.clients import CALL, SAID, TOOLS, TURNS, City
from tests.gateway.steward_stub import door


async def test_ollama(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), AsyncExitStack() as stack:
        headers = {"authorization": f"Bearer {key}"}
        api = await stack.enter_async_context(ollama.AsyncClient(url.removesuffix("/v1"), headers=headers, timeout=20))
        told = await api.chat(model="countdown", messages=TURNS, options={"num_predict": 3, "num_ctx": 100})
        assert (told.message.content, told.done_reason, told.eval_count) == ("9 8 7 ", "length", 3)
        pieces = [part.message.content async for part in await api.chat(model="countdown", messages=TURNS, stream=True)]
        assert "".join(piece or "" for piece in pieces) == SAID
        plain = await api.generate(model="countdown", prompt="Go", system="Be kind.", options={"temperature": 0})
        assert plain.response == SAID
        assert [turn.role for turn in steward.asked[-1].turns] == ["system", "user"]
        assert [model.model for model in (await api.list()).models] == ["countdown"]
        assert (await api.show("countdown")).capabilities == ["completion", "tools"]
        await api.chat(model="countdown", messages=TURNS, format=City.model_json_schema())
        assert json.loads(steward.asked[-1].guide)["json_schema"]["required"] == ["name"]
        steward.words = CALL
        called = await api.chat(model="countdown", messages=TURNS, tools=TOOLS)
        assert called.message.tool_calls is not None
        assert called.message.tool_calls[0].function.arguments == {"city": "Z\u00fcrich"}
        with pytest.raises(ollama.ResponseError, match="not served"):
            await api.chat(model="nobody", messages=TURNS)
