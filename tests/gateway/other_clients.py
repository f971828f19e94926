"""Clients that are too large to install for every test, against a running gateway with a made-up model behind it:

    pip install openai litellm langchain-openai instructor 'pydantic-ai-slim[openai]' openai-agents together
    python -m tests.gateway.other_clients > benchmarks/results/clients.jsonl

Each does what its own documentation begins with. Prints a JSON line for each use; exits with 1 when one failed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tests.gateway.clients import CALL, SAID, TOOLS, TURNS
from tests.gateway.steward_stub import WORDS, Steward, door


class City(BaseModel):
    """A form to keep."""

    name: str


Case = Callable[[Steward, str, str], Awaitable[None]]
CASES: dict[tuple[str, str], Case] = {}
FORM = ['{"name":', '"Bern"}']
WEATHER = ['<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>']
FINAL = ['<tool_call>{"name": "final_result", "arguments": {"name": "Bern"}}</tool_call>']


def case(package: str, use: str) -> Callable[[Case], Case]:
    def keep(act: Case) -> Case:
        CASES[package, use] = act
        return act

    return keep


def _load(name: str) -> Any:
    return importlib.import_module(name)


@case("openai", "chat, stream, tools, parse, responses")
async def use_openai(steward: Steward, url: str, key: str) -> None:
    api = _load("openai").AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    whole = await api.chat.completions.create(model="countdown", messages=TURNS)
    assert whole.choices[0].message.content == SAID
    async with api.responses.stream(model="countdown", input="?") as stream:
        assert (await stream.get_final_response()).output_text == SAID
    steward.words = CALL
    async with api.chat.completions.stream(model="countdown", messages=TURNS, tools=TOOLS, max_tokens=20) as told:
        assert (await told.get_final_completion()).choices[0].finish_reason == "tool_calls"
    steward.words = FORM
    parsed = await api.chat.completions.parse(model="countdown", messages=TURNS, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Bern")
    await api.close()


@case("litellm", "completion, stream, tools")
async def use_litellm(steward: Steward, url: str, key: str) -> None:
    litellm = _load("litellm")
    about: dict[str, Any] = {"model": "openai/countdown", "api_base": url, "api_key": key, "messages": TURNS}
    assert (await litellm.acompletion(**about)).choices[0].message.content == SAID
    stream = await litellm.acompletion(**about, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID
    steward.words = WEATHER
    called = await litellm.acompletion(**about, tools=TOOLS)
    assert called.choices[0].message.tool_calls[0].function.name == "weather"


@case("langchain-openai", "invoke, stream, bind_tools, with_structured_output")
async def use_langchain(steward: Steward, url: str, key: str) -> None:
    chat = _load("langchain_openai").ChatOpenAI(model="countdown", base_url=url, api_key=key, max_retries=0)
    assert (await chat.ainvoke("Count.")).content == SAID
    assert "".join([str(chunk.content) async for chunk in chat.astream("Count.")]) == SAID
    steward.words = WEATHER
    called = await chat.bind_tools(TOOLS).ainvoke("?")
    assert called.tool_calls[0]["args"] == {"city": "Bern"}
    steward.words = FORM
    assert await chat.with_structured_output(City).ainvoke("?") == City(name="Bern")


@case("instructor", "response_model by tools and by JSON schema")
async def use_instructor(steward: Steward, url: str, key: str) -> None:
    instructor, openai = _load("instructor"), _load("openai")
    raw = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    steward.words = ['<tool_call>{"name": "City", "arguments": {"name": "Bern"}}</tool_call>']
    by_tools = instructor.from_openai(raw)
    made = await by_tools.chat.completions.create(model="countdown", messages=TURNS, response_model=City)
    assert made.name == "Bern"
    steward.words = FORM
    by_schema = instructor.from_openai(raw, mode=instructor.Mode.JSON_SCHEMA)
    made = await by_schema.chat.completions.create(model="countdown", messages=TURNS, response_model=City)
    assert made.name == "Bern"
    await raw.close()


@case("pydantic-ai-slim", "run, stream, output_type, tools")
async def use_pydantic_ai(steward: Steward, url: str, key: str) -> None:
    ai = _load("pydantic_ai")
    provider = _load("pydantic_ai.providers.openai").OpenAIProvider(base_url=url, api_key=key)
    model = _load("pydantic_ai.models.openai").OpenAIChatModel("countdown", provider=provider)
    assert (await ai.Agent(model).run("Count.")).output == SAID
    async with ai.Agent(model).run_stream("Count.") as stream:
        assert await stream.get_output() == SAID
    steward.words = FINAL
    assert (await ai.Agent(model, output_type=City).run("?")).output == City(name="Bern")


@case("openai-agents", "run by responses and by chat, function tools")
async def use_agents(steward: Steward, url: str, key: str) -> None:
    agents, openai = _load("agents"), _load("openai")
    agents.set_tracing_disabled(True)
    raw = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        steward.words = WORDS
        return "sunny"

    for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
        steward.words = WEATHER
        tools = [agents.function_tool(weather)]
        agent = agents.Agent(name="a", instructions="Be kind.", model=kind("countdown", raw), tools=tools)
        assert (await agents.Runner.run(agent, "?")).final_output == SAID
    assert asked == ["Bern", "Bern"]
    await raw.close()


@case("together", "chat, stream, models")
async def use_together(_steward: Steward, url: str, key: str) -> None:
    api = _load("together").AsyncTogether(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0)
    whole = await api.chat.completions.create(model="countdown", messages=TURNS)
    assert whole.choices[0].message.content == SAID
    stream = await api.chat.completions.create(model="countdown", messages=TURNS, stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert said == SAID
    await api.close()


async def main() -> int:
    """-> how many uses failed."""
    failed = 0
    for (package, use), act in CASES.items():
        found: dict[str, Any] = {"client": package, "use": use}
        with tempfile.TemporaryDirectory(prefix="fallow-clients-") as name:
            async with door(Path(name)) as (steward, url, key):
                try:
                    found["version"] = version(package)
                    await asyncio.wait_for(act(steward, url, key), 120)
                    found["ok"] = True
                except Exception as error:  # noqa: BLE001 - whatever a client makes of it is its result
                    failed += 1
                    found |= {"ok": False, "why": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(found), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
