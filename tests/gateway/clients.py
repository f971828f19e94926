"""What the tests of all doors ask, through the unmodified official clients of those who made them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
from pydantic import BaseModel
from tests.gateway.steward_stub import WORDS, Steward, door

TURNS: Any = [{"role": "user", "content": "Count down."}]
SAID = "".join(WORDS)
PARAMETERS: Any = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "strict": True, "parameters": PARAMETERS}}]
CALL = ["Let me see. ", "<tool", '_call>{"name": "weather", "argu', 'ments": {"city": "Z\u00fcrich"}}</tool_c', "all>"]
HISTORY: Any = [
    *TURNS,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    ]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]  # fmt: skip


class City(BaseModel):
    """What is asked for as JSON."""

    name: str


@asynccontextmanager
async def with_openai(tmp_path: Path) -> AsyncGenerator[tuple[Steward, openai.AsyncOpenAI]]:
    async with (
        door(tmp_path) as (steward, url, key),
        openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=20) as api,
    ):
        yield steward, api
