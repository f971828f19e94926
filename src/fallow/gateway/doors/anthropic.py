"""Anthropic's /v1/messages (API version 2023-06-01)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from fallow.errors import FallowError
from fallow.gateway.calls import Call, CallReader
from fallow.gateway.doors import openai
from fallow.gateway.doors.chat import called
from fallow.gateway.doors.door import Door, Finished, ModelRequest, Naming, Reply
from fallow.gateway.doors.fields import MAX_TOKENS, MAX_TURNS, BodyFields, TextPart, parse, read_stops, text_of
from fallow.gateway.doors.tools import AUTO, REQUIRED, Tool, guide_of, named, tools_text
from fallow.kinds.generate.tasks import ChatTurn, Generate


class ToolUse(BodyFields):
    """A call in the history."""

    harmless = frozenset({"cache_control", "caller"})
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any] = Field(default={})


class ToolResult(BodyFields):
    """What a call gave."""

    harmless = frozenset({"cache_control", "is_error"})
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextPart] = ""


MessageBlock = TextPart | ToolUse | ToolResult


class BlockMessage(BodyFields):
    """One message; its blocks become a turn, and results of calls one each."""

    role: Literal["user", "assistant", "system"]
    content: str | list[MessageBlock]

    def turns(self) -> list[ChatTurn]:
        blocks = [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content
        turns = [
            ChatTurn("tool", text_of(block.content), json.dumps({"tool_call_id": block.tool_use_id}))
            for block in blocks
            if isinstance(block, ToolResult)
        ]
        text = "".join(block.text for block in blocks if isinstance(block, TextPart))
        calls = [
            called(block.id, block.name, json.dumps(block.input)) for block in blocks if isinstance(block, ToolUse)
        ]
        if text or calls or not turns:
            more = json.dumps({"tool_calls": calls}, ensure_ascii=False) if calls else ""
            turns.append(ChatTurn(self.role, text, more))
        return turns


class MessageTool(BodyFields):
    """A tool of the caller's own."""

    harmless = frozenset({"cache_control", "strict", "eager_input_streaming"})
    neutral: ClassVar = {"type": ("custom",)}
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str = ""
    input_schema: dict[str, Any] = Field(default={})

    def tool(self) -> Tool:
        return Tool(name=self.name, description=self.description, parameters=self.input_schema)


class ToolChoice(BodyFields):
    """Which tools may or must be called."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str = ""
    disable_parallel_tool_use: bool = False


class MessagesRequest(BodyFields):
    """The body of /v1/messages."""

    harmless = frozenset({"metadata", "service_tier", "cache_control"})
    neutral: ClassVar = {"thinking": ({"type": "disabled"},), "top_k": (-1,)}
    model: str = Field(min_length=1, max_length=200)
    messages: list[BlockMessage] = Field(min_length=1, max_length=MAX_TURNS)
    max_tokens: int = Field(ge=1, le=MAX_TOKENS)
    system: str | list[TextPart] = ""
    temperature: float = Field(default=1.0, ge=0, le=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop_sequences: tuple[str, ...] = ()
    stream: bool = False
    tools: tuple[MessageTool, ...] = Field(default=(), max_length=128)
    tool_choice: ToolChoice = ToolChoice()

    def tasks(self, _context_tokens: int) -> list[Generate]:
        """The work that this request asks for."""
        turns = [ChatTurn("system", text_of(self.system))] if self.system else []
        turns += [turn for message in self.messages for turn in message.turns()]
        tools = [tool.tool() for tool in self.tools] if self.tool_choice.type != "none" else []
        calls = {"any": REQUIRED, "tool": REQUIRED}.get(self.tool_choice.type, AUTO)
        choice = self.tool_choice.name if self.tool_choice.type == "tool" else ""
        if self.tool_choice.type == "tool":
            calls = named(tools, choice)
        guide = guide_of(tools, calls, choice, not self.tool_choice.disable_parallel_tool_use, {})
        stops = read_stops("stop_sequences", self.stop_sequences)
        return [
            Generate(
                tuple(turns), "", self.max_tokens, f"{self.temperature:g}", f"{self.top_p:g}", stops,
                tools=tools_text(tools), guide=guide,
            )
        ]  # fmt: skip


class MessagesReply(Reply):
    """A message of blocks: text, and calls."""

    def __init__(self, naming: Naming, with_calls: bool) -> None:
        self._naming = naming
        self._reader = CallReader() if with_calls else None
        self._blocks: list[dict[str, Any]] = []
        self._open = False

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        answer = answers[0]
        self._take(answer.value.text)
        self._finish()
        return {**self._message(answer), "stop_reason": self._reason(answer), "receipt": answer.receipt}

    def _message(self, answer: Finished | None) -> dict[str, Any]:
        read, made = openai.counted([answer] if answer else [])
        return {
            "id": f"msg_{self._naming.serial}", "type": "message", "role": "assistant", "model": self._naming.model,
            "content": self._blocks if answer else [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": read, "output_tokens": made},
        }  # fmt: skip

    def _reason(self, answer: Finished) -> str:
        if answer.value.finish == "length":
            return "max_tokens"
        return "tool_use" if self._reader and self._reader.calls else "end_turn"

    def opening(self) -> bytes:
        return openai.event({"type": "message_start", "message": self._message(None)}, "message_start")

    def piece(self, index: int, text: str) -> bytes:
        return self._take(text)

    def ended(self, index: int, answer: Finished) -> bytes:
        data = self._finish()
        read, made = openai.counted([answer])
        delta = {"stop_reason": self._reason(answer), "stop_sequence": None}
        told = {"type": "message_delta", "delta": delta, "usage": {"input_tokens": read, "output_tokens": made}}
        return data + openai.event({**told, "receipt": answer.receipt}, "message_delta")

    def closing(self, answers: Sequence[Finished]) -> bytes:
        return openai.event({"type": "message_stop"}, "message_stop")

    def broken(self, error: FallowError) -> bytes:
        return openai.event(_error(error)[1], "error")

    def _take(self, text: str) -> bytes:
        said = self._reader.feed(text) if self._reader else [text]
        return b"".join(self._call(item) if isinstance(item, Call) else self._say(item) for item in said if item)

    def _finish(self) -> bytes:
        rest = self._reader.end() if self._reader else []
        return b"".join(self._say(item) for item in rest if isinstance(item, str)) + self._close()

    def _begin(self, block: dict[str, Any], shown: dict[str, Any]) -> bytes:
        self._blocks.append(block)
        return self._event("content_block_start", content_block=shown)

    def _event(self, kind: str, **more: Any) -> bytes:
        return openai.event({"type": kind, "index": len(self._blocks) - 1, **more}, kind)

    def _say(self, text: str) -> bytes:
        data = b""
        if not self._open:
            self._open = True
            data = self._begin({"type": "text", "text": ""}, {"type": "text", "text": ""})
        self._blocks[-1]["text"] += text
        return data + self._event("content_block_delta", delta={"type": "text_delta", "text": text})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        return self._event("content_block_stop")

    def _call(self, call: Call) -> bytes:
        data = self._close()
        about = {"type": "tool_use", "id": f"toolu_{self._naming.serial}{len(self._blocks)}", "name": call.name}
        data += self._begin({**about, "input": json.loads(call.arguments)}, {**about, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return data + self._event("content_block_delta", delta=delta) + self._event("content_block_stop")


_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def _error(error: FallowError) -> tuple[int, dict[str, Any]]:
    status, body = openai.error_reply(error)
    kind = _KINDS.get(status, "overloaded_error" if status == 503 else "api_error")
    told = {"type": kind, "message": error.what, "fallow": body["error"]["fallow"]}
    return status, {"type": "error", "error": told}


class MessagesDoor(Door):
    """Anthropic's messages."""

    path = "/v1/messages"
    body = MessagesRequest

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(MessagesRequest, data)
        asked.tasks(MAX_TOKENS)
        with_calls = bool(asked.tools) and asked.tool_choice.type != "none"
        return ModelRequest(asked.model, asked.tasks, lambda naming: MessagesReply(naming, with_calls), asked.stream)

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return _error(error)
