"""Unmodified clients against real processes: tools and forms from the exact engine, streams that survive their provider
with a form to keep, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from tests.e2e.kill_any import books, settled
from tests.e2e.test_network import wait_until_served
from tests.workloads.tiny import make_model

from fallow.cli.demo_net import Network
from fallow.sdk.client import AsyncFallow

TURNS: Any = [{"role": "user", "content": "The old farmer"}]
SCHEMA: dict[str, Any] = {
    "type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
LEAVING = 24
END = "0"
"""The token that ends an answer: without it one goes on to its last token."""


async def serve(client: AsyncFallow, folder: Path, workers: int) -> Any:
    terms: dict[str, Any] = {"budget": "5", "workers": workers, "verify": "none"}
    job = await client.serve("tiny", folder / "model", None, 1024, **terms)
    await wait_until_served(client, "tiny")
    return job


def client_of(url: str, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=120)


async def ask_everybody(url: str, secret: str) -> None:
    """Each client's ordinary use, with a model of random weights: that it keeps to a form is the engine's doing."""
    async with client_of(url, secret) as api:
        called = await api.chat.completions.create(
            model="tiny", messages=TURNS, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=300
        )
        calls: Any = called.choices[0].message.tool_calls
        assert calls, called
        assert calls[0].function.name == "weather"
        assert json.loads(calls[0].function.arguments)["city"] in ("Bern", "Rome")
        form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        several = await api.chat.completions.create(
            model="tiny", messages=TURNS, response_format=form, n=2, seed=3, max_tokens=300
        )
        assert all(json.loads(choice.message.content or "")["city"] in ("Bern", "Rome") for choice in several.choices)
        told = await api.responses.create(
            model="tiny", input="?", text={"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
        )
        assert json.loads(told.output_text)["city"] in ("Bern", "Rome")
        with pytest.raises(openai.BadRequestError):
            bad: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
            await api.chat.completions.create(model="tiny", messages=TURNS, response_format=bad)
    host = url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=host, api_key=secret, max_retries=0, timeout=120) as claude:
        used = await claude.messages.create(
            model="tiny", max_tokens=300, messages=TURNS, tool_choice={"type": "tool", "name": "weather"},
            tools=[{"name": "weather", "input_schema": SCHEMA}],
        )  # fmt: skip
        assert used.stop_reason == "tool_use"
    async with ollama.AsyncClient(host, headers={"authorization": f"Bearer {secret}"}, timeout=120) as llama:
        said = await llama.chat(model="tiny", messages=TURNS, format=SCHEMA, options={"num_predict": 300})
        assert json.loads(said.message.content or "")["city"] in ("Bern", "Rome")


async def leave(url: str, secret: str) -> None:
    """Clients that ask for everything and have gone before it is there."""
    async with client_of(url, secret) as api:

        async def one() -> None:
            with pytest.raises(openai.APITimeoutError):
                await api.chat.completions.create(
                    model="tiny", messages=TURNS, max_tokens=400, logit_bias={END: -100}, timeout=0.05
                )

        await asyncio.gather(*(one() for _ in range(LEAVING)))


async def test_every_client_is_answered_and_whoever_leaves_pays_for_no_more_than_was_made(tmp_path: Path) -> None:
    make_model(tmp_path / "model", context_tokens=1024)
    with Network(tmp_path / "net") as network:
        client = await network.found(1, cheats=0)
        url = network.member("gateway").announced["base_url"]
        job = await serve(client, tmp_path, 1)
        await ask_everybody(url, await client.make_key("all", "1"))
        leaving = await client.make_key("leaving", "1")
        await leave(url, leaving)
        async with client_of(url, await client.make_key("staying", "1")) as api:
            answer = await api.chat.completions.create(model="tiny", messages=TURNS, max_tokens=4)
            assert answer.usage is not None
        spent = {key.label: key.spent_ucr for key in await client.keys()}
        (price,) = {model.price_ucr for model in await client.models()}
        whole_ucr = LEAVING * 400 * price // 1000
        assert spent["leaving"] < whole_ucr // 2, (spent, whole_ucr)
        await job.cancel()
        await asyncio.wait_for(settled(job), 60)
        after = await books(client)
    assert after.minted_ucr == after.sum_ucr
