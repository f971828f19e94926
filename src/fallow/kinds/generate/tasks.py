"""What a generate task is asked and what it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, Decimal, Name

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
"""How an answer tells that it calls a tool: between these a JSON object with the tool's "name" and the "arguments"."""
MAX_JSON_CHARS = 1 << 18
Json = Annotated[str, msgspec.Meta(max_length=MAX_JSON_CHARS)]
"""JSON of strangers, read in a worker and nowhere else; "" for none."""
Bias = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)],
    Annotated[int, msgspec.Meta(ge=-10_000, le=10_000)],
]
"""A token, and what is added to its logit, in hundredths."""


class ChatTurn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Who spoke ("system", "user", "assistant", "tool"), and what was said. `more`: a JSON object with what a chat
    template may know of a message beside that: tool_calls, tool_call_id, name, reasoning_content."""

    role: Name
    content: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    more: Json = ""


class Generate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One completion. Either `turns` (chat, through the model's own template) or `prompt` is set. Sampling is seeded
    by the task's seed and each token's position; temperature "0" is greedy. `resume` holds the text already
    sent by a provider that went away: it is taken as given and continued.

    `tools`: a JSON list of function tools as OpenAI's clients send them. `guide`: a JSON object that says what form the
    answer must have, with exactly one of {"json_schema": {...}}, {"json": true}, {"regex": "..."}, {"choice": [...]},
    {"lark": "..."}, {"calls": "auto" | "required" | {"name": "f"}, "parallel": bool}. Calls of tools are told in the
    text, between CALL_OPEN and CALL_CLOSE. The penalties, -2 to 2, are OpenAI's: what is taken off the logit of a token
    for each time that the answer has it, and once if it does."""

    turns: Annotated[tuple[ChatTurn, ...], msgspec.Meta(max_length=1024)]
    prompt: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    max_tokens: U64
    temperature: Decimal = "0"
    top_p: Decimal = "1"
    stop: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=1000)], ...], msgspec.Meta(max_length=16)] = ()
    resume: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)] = ""
    tools: Json = ""
    guide: Json = ""
    frequency_penalty: Decimal = "0"
    presence_penalty: Decimal = "0"
    bias: Annotated[tuple[Bias, ...], msgspec.Meta(max_length=1024)] = ()


CANCELLED = "cancelled"


class GenerateValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The value of a generate task. `finish` is "stop", "length", or CANCELLED for one that was stopped because nobody
    wanted more: it holds what had been made by then. Token counts follow the model's tokenizer, but for a cancelled
    answer: its `completion_tokens` are the pieces of text that were told, of at least one token each, so that whoever
    heard them can count them. `logits` commits to what the tokens were chosen from: a hash over the logits before each
    token that was made here, in order (docs/spec/exact-arithmetic.md, section 21), or b"" from engines whose bits
    differ between machines."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    finish: Name
    prompt_tokens: U64
    completion_tokens: U64
    logits: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
