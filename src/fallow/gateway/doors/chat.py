"""OpenAI's /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from fallow.errors import FallowError, fail
from fallow.gateway.calls import Call, CallReader, read_calls
from fallow.gateway.doors import openai
from fallow.gateway.doors.door import Door, Finished, ModelRequest, Naming, Reply, tokens_for
from fallow.gateway.doors.fields import (
    MAX_NAME,
    MAX_TOKENS,
    MAX_TURNS,
    BodyFields,
    Content,
    SharedFields,
    parse,
    text_of,
)
from fallow.gateway.doors.tools import Choice, Tool, guide_of, named, sampled, tools_text
from fallow.kinds.generate.tasks import ChatTurn, Generate

_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class CalledFunction(BodyFields):
    """What an assistant called."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    arguments: str = ""


class ToolCall(BodyFields):
    """A call in the history."""

    harmless = frozenset({"index"})
    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BodyFields):
    """One message of a conversation."""

    harmless = frozenset({"annotations", "refusal"})
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    def turn(self) -> ChatTurn:
        """As the model's template has it: arguments as objects, where they are."""
        more: dict[str, Any] = {}
        if self.name:
            more["name"] = self.name
        if self.tool_call_id:
            more["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            more["tool_calls"] = [called(c.id, c.function.name, c.function.arguments) for c in self.tool_calls]
        role = "system" if self.role == "developer" else self.role
        return ChatTurn(role, text_of(self.content), json.dumps(more, ensure_ascii=False) if more else "")


def called(identifier: str, name: str, arguments: str) -> dict[str, Any]:
    """A call in the history, as templates read it."""
    try:
        given = _JSON.validate_json(arguments or "{}")
    except ValueError:
        given = arguments
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": given}}


class ToolEntry(BodyFields):
    """A tool in OpenAI's chat form."""

    type: Literal["function"]
    function: Tool


class NamedFunction(BodyFields):
    """A function by its name."""

    name: str


class NamedTool(BodyFields):
    """A tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class SchemaFormat(BodyFields):
    """A JSON schema with its name."""

    harmless = frozenset({"description", "name", "strict"})
    json_schema: dict[str, Any] = Field(default={}, alias="schema")


class ResponseFormat(BodyFields):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(BodyFields):
    """`include_usage` asks for a last chunk with token counts."""

    harmless = frozenset({"include_obfuscation", "continuous_usage_stats"})
    include_usage: bool = False


class ChatRequest(SharedFields):
    """The body of /v1/chat/completions."""

    harmless = frozenset({
        "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prediction",
    })  # fmt: skip
    neutral: ClassVar = {
        "modalities": (["text"],), "function_call": ("none", "auto"), "reasoning_effort": ("none",),
        "verbosity": ("medium",), "repetition_penalty": (1,), "top_k": (-1,), "best_of": (1,),
    }  # fmt: skip
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_TURNS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: tuple[ToolEntry, ...] = Field(default=(), max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    response_format: ResponseFormat = ResponseFormat(type="text")
    stream_options: StreamOptions = StreamOptions()

    def tasks(self, context_tokens: int) -> list[Generate]:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        most = tokens_for(self.max_completion_tokens or self.max_tokens, context_tokens)
        choice: Choice = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else ""
        tools = [entry.function for entry in self.tools] if self.tool_choice != "none" else []
        asked = named(tools, choice) if choice else str(self.tool_choice)
        guide = guide_of(tools, asked, choice, self.parallel_tool_calls, self._form())
        turns = tuple(message.turn() for message in self.messages)
        return [sampled(Generate(turns, "", most, tools=tools_text(tools), guide=guide), self)]

    def _form(self) -> dict[str, Any]:
        if self.response_format.type == "text":
            return {}
        if self.response_format.type == "json_object":
            return {"json": True}
        if self.response_format.json_schema is None:
            raise fail("E1904", "response_format.json_schema: Field required.")
        return {"json_schema": self.response_format.json_schema.json_schema}


class ChatReply(Reply):
    """Chunks are built by msgspec, since there is one for each token."""

    def __init__(self, naming: Naming, with_calls: bool, with_usage: bool) -> None:
        self._serial, self._with_calls, self._with_usage = naming.serial, with_calls, with_usage
        self._base: dict[str, Any] = {
            "id": f"chatcmpl-{naming.serial}", "created": naming.created_s, "model": naming.model,
        }  # fmt: skip
        self._readers: dict[int, CallReader] = {}

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        tail = {"choices": choices, "usage": openai.usage(answers), **openai.receipts(answers)}
        return {**self._base, "object": "chat.completion", **tail}

    def _choice(self, index: int, answer: Finished) -> dict[str, Any]:
        text, calls = read_calls(answer.value.text) if self._with_calls else (answer.value.text, [])
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [self._call(index, number, call) for number, call in enumerate(calls)]
        finish = _finish(answer.value.finish, bool(calls))
        return {"index": index, "finish_reason": finish, "logprobs": None, "message": message}

    def _call(self, index: int, number: int, call: Call) -> dict[str, Any]:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": f"call_{self._serial}{index}{number}", "type": "function", "function": function}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return openai.event({**self._base, "object": "chat.completion.chunk", "choices": choices, **more})

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return self._chunk([{"index": index, "delta": delta, "finish_reason": None}])

    def opening(self) -> bytes:
        return self._delta(0, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> bytes:
        if not self._with_calls:
            return self._delta(index, {"content": text})
        return self._said(index, self._reader(index).feed(text))

    def _reader(self, index: int) -> CallReader:
        return self._readers.setdefault(index, CallReader())

    def _said(self, index: int, said: Sequence[str | Call]) -> bytes:
        data, first = b"", self._reader(index).calls - sum(isinstance(item, Call) for item in said)
        for item in said:
            if isinstance(item, Call):
                data += self._delta(index, {"tool_calls": [{"index": first, **self._call(index, first, item)}]})
                first += 1
            else:
                data += self._delta(index, {"content": item})
        return data

    def ended(self, index: int, answer: Finished) -> bytes:
        rest = self._said(index, self._reader(index).end()) if self._with_calls else b""
        finish = _finish(answer.value.finish, self._with_calls and self._reader(index).calls > 0)
        return rest + self._chunk([{"index": index, "finish_reason": finish, "delta": {}}], receipt=answer.receipt)

    def closing(self, answers: Sequence[Finished]) -> bytes:
        return (self._chunk([], usage=openai.usage(answers)) if self._with_usage else b"") + openai.DONE

    def broken(self, error: FallowError) -> bytes:
        return openai.event(openai.error_reply(error)[1]) + openai.DONE


def _finish(finish: str, calls: bool) -> str:
    return "tool_calls" if calls and finish == "stop" else finish


class ChatDoor(Door):
    """OpenAI's chat completions."""

    path = "/v1/chat/completions"
    body = ChatRequest

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(ChatRequest, data)
        asked.tasks(MAX_TOKENS)
        with_calls = bool(asked.tools) and asked.tool_choice != "none"
        return ModelRequest(
            asked.model, asked.tasks, lambda naming: ChatReply(naming, with_calls, asked.stream_options.include_usage),
            asked.stream, asked.seed, asked.n,
        )  # fmt: skip

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return openai.error_reply(error)
