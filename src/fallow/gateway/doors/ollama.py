"""Ollama's /api/chat and /api/generate: objects, a line each, and streamed unless the client says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field

from fallow.errors import FallowError
from fallow.gateway.calls import Call, CallReader
from fallow.gateway.doors import openai
from fallow.gateway.doors.chat import ToolEntry
from fallow.gateway.doors.door import Door, Finished, ModelRequest, Naming, Reply, tokens_for
from fallow.gateway.doors.fields import MAX_TOKENS, MAX_TURNS, BodyFields, Stops, parse
from fallow.gateway.doors.tools import AUTO, guide_of, tools_text
from fallow.kinds.generate.tasks import ChatTurn, Generate


class OllamaFunction(BodyFields):
    """What was called."""

    name: str
    arguments: dict[str, Any] = Field(default={})


class OllamaCall(BodyFields):
    """A call in the history."""

    harmless = frozenset({"id", "type"})
    function: OllamaFunction


class OllamaMessage(BodyFields):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[OllamaCall, ...] = ()
    tool_name: str = ""

    def turn(self) -> ChatTurn:
        more: dict[str, Any] = {"name": self.tool_name} if self.tool_name else {}
        if self.tool_calls:
            more["tool_calls"] = [
                {"type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
                for c in self.tool_calls
            ]
        return ChatTurn(self.role, self.content, json.dumps(more, ensure_ascii=False) if more else "")


class OllamaOptions(Stops):
    """How tokens are chosen. How the model is loaded (num_ctx and the like) is its provider's business."""

    harmless = frozenset({
        "num_ctx", "num_batch", "num_gpu", "num_thread", "main_gpu", "use_mmap", "use_mlock", "num_keep", "low_vram",
    })  # fmt: skip
    neutral: ClassVar = {"repeat_penalty": (1,), "top_k": (-1,), "typical_p": (1,)}
    temperature: float = Field(default=0.8, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    seed: int | None = None
    num_predict: int = Field(default=-1, ge=-2, le=MAX_TOKENS)


class OllamaRequest(BodyFields):
    """What both share."""

    harmless = frozenset({"keep_alive"})
    model: str = Field(min_length=1, max_length=200)
    stream: bool = True
    format: Literal["", "json"] | dict[str, Any] = ""
    options: OllamaOptions = OllamaOptions()

    def _task(
        self, turns: Sequence[ChatTurn], prompt: str, context_tokens: int, tools: Sequence[ToolEntry]
    ) -> Generate:
        options = self.options
        most = tokens_for(options.num_predict if options.num_predict > 0 else None, context_tokens)
        form = {"json": True} if self.format == "json" else {"json_schema": self.format} if self.format else {}
        functions = [entry.function for entry in tools]
        return Generate(
            tuple(turns), prompt, most, f"{options.temperature:g}", f"{options.top_p:g}", options.stops(),
            tools=tools_text(functions), guide=guide_of(functions, AUTO, "", True, form),
            frequency_penalty=f"{options.frequency_penalty:g}", presence_penalty=f"{options.presence_penalty:g}",
        )  # fmt: skip


class OllamaChat(OllamaRequest):
    """The body of /api/chat."""

    messages: list[OllamaMessage] = Field(min_length=1, max_length=MAX_TURNS)
    tools: tuple[ToolEntry, ...] = Field(default=(), max_length=128)

    def tasks(self, context_tokens: int) -> list[Generate]:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        return [self._task([message.turn() for message in self.messages], "", context_tokens, self.tools)]


class OllamaGenerate(OllamaRequest):
    """The body of /api/generate: a prompt through the model's template, or as it is (`raw`)."""

    prompt: str = Field(min_length=1)
    system: str = ""
    raw: bool = False

    def tasks(self, context_tokens: int) -> list[Generate]:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        if self.raw:
            return [self._task([], self.prompt, context_tokens, [])]
        turns = [ChatTurn("system", self.system)] if self.system else []
        return [self._task([*turns, ChatTurn("user", self.prompt)], "", context_tokens, [])]


class OllamaReply(Reply):
    """Lines of JSON."""

    media_type = "application/x-ndjson"

    def __init__(self, naming: Naming, chat: bool, with_calls: bool) -> None:
        made = datetime.fromtimestamp(naming.created_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
        self._base = {"model": naming.model, "created_at": made}
        self._chat, self._reader = chat, CallReader() if with_calls else None

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        text, calls = "", list[Call]()
        for item in self._said(answers[0].value.text) + (self._reader.end() if self._reader else []):
            if isinstance(item, Call):
                calls.append(item)
            else:
                text += item
        return self._last(answers[0], text, calls)

    def _said(self, text: str) -> list[str | Call]:
        return self._reader.feed(text) if self._reader else [text]

    def _body(self, text: str, calls: Sequence[Call] = ()) -> dict[str, Any]:
        if not self._chat:
            return {"response": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [
                {"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls
            ]
        return {"message": message}

    def _last(self, answer: Finished, text: str, calls: Sequence[Call]) -> dict[str, Any]:
        read, made = openai.counted([answer])
        counts = {"prompt_eval_count": read, "eval_count": made, "receipt": answer.receipt}
        done = {"done": True, "done_reason": answer.value.finish}
        return {**self._base, **self._body(text, calls), **done, **counts}

    def _lines(self, said: Sequence[str | Call]) -> bytes:
        bodies = [self._body("", [item]) if isinstance(item, Call) else self._body(item) for item in said if item]
        return b"".join(_line({**self._base, **body, "done": False}) for body in bodies)

    def piece(self, index: int, text: str) -> bytes:
        return self._lines(self._said(text))

    def ended(self, index: int, answer: Finished) -> bytes:
        return self._lines(self._reader.end() if self._reader else []) + _line(self._last(answer, "", []))

    def closing(self, answers: Sequence[Finished]) -> bytes:
        return b""

    def broken(self, error: FallowError) -> bytes:
        return _line(_error(error)[1])


def _line(data: dict[str, Any]) -> bytes:
    return msgspec.json.encode(data) + b"\n"


def _error(error: FallowError) -> tuple[int, dict[str, Any]]:
    status, body = openai.error_reply(error)
    return status, {"error": error.what, "fallow": body["error"]["fallow"]}


class OllamaChatDoor(Door):
    """Ollama's chat."""

    path = "/api/chat"
    body = OllamaChat

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(OllamaChat, data)
        return _asked(asked, asked.tasks, lambda naming: OllamaReply(naming, True, bool(asked.tools)))

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return _error(error)


class OllamaGenerateDoor(Door):
    """Ollama's plain generation."""

    path = "/api/generate"
    body = OllamaGenerate

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(OllamaGenerate, data)
        return _asked(asked, asked.tasks, lambda naming: OllamaReply(naming, False, False))

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return _error(error)


def _asked(
    asked: OllamaRequest, tasks: Callable[[int], list[Generate]], reply: Callable[[Naming], Reply]
) -> ModelRequest:
    tasks(MAX_TOKENS)
    return ModelRequest(asked.model, tasks, reply, asked.stream, asked.options.seed)
