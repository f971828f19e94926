"""OpenAI's /v1/responses, of which nothing is stored: each request brings its whole conversation. The events of a
stream are those of OpenAI's API reference ("Streaming events"), numbered in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from fallow.errors import FallowError, fail
from fallow.gateway.calls import Call, CallReader
from fallow.gateway.doors import openai
from fallow.gateway.doors.chat import ChatMessage, NamedFunction
from fallow.gateway.doors.door import Door, Finished, ModelRequest, Naming, Reply, tokens_for
from fallow.gateway.doors.fields import MAX_NAME, MAX_TOKENS, MAX_TURNS, BodyFields, Content, SharedFields, parse
from fallow.gateway.doors.tools import Choice, Tool, guide_of, named, sampled, tools_text
from fallow.kinds.generate.tasks import ChatTurn, Generate


class Item(BodyFields):
    """A piece of the conversation: a message, a call, or what a call gave."""

    harmless = frozenset({"id", "status", "phase"})
    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Content = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Content = ""

    def message(self) -> ChatMessage:
        """As a chat's message. Raises UsageError E1904 for a call of nothing."""
        if self.type == "function_call":
            if not 1 <= len(self.name) <= MAX_NAME:
                raise fail("E1904", f"input: a call needs the name of a function, of 1 to {MAX_NAME} characters.")
            call = {"id": self.call_id, "function": {"name": self.name, "arguments": self.arguments}}
            return ChatMessage.model_validate({"role": "assistant", "tool_calls": [call]})
        if self.type == "function_call_output":
            return ChatMessage(role="tool", content=self.output, tool_call_id=self.call_id)
        return ChatMessage(role=self.role, content=self.content)


class FunctionTool(Tool):
    """A tool; only functions of the caller's own."""

    type: Literal["function"]


class FunctionChoice(NamedFunction):
    """A tool that must be called."""

    type: Literal["function"]


class TextFormat(BodyFields):
    """What the answer must look like."""

    harmless = frozenset({"description", "name", "strict"})
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class TextForm(BodyFields):
    """How the text is wanted."""

    neutral: ClassVar = {"verbosity": ("medium",)}
    format: TextFormat = TextFormat()


class ResponsesRequest(SharedFields):
    """The body of /v1/responses. `store` is taken as said of somebody else's servers: nothing is kept here."""

    harmless = frozenset({
        "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store",
        "include", "stream_options",
    })  # fmt: skip
    neutral: ClassVar = {"truncation": ("disabled",)}
    input: str | list[Item] = Field(min_length=1, max_length=1 << 20)
    instructions: str = ""
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: tuple[FunctionTool, ...] = Field(default=(), max_length=128)
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice = "auto"
    parallel_tool_calls: bool = True
    text: TextForm = TextForm()

    def tasks(self, context_tokens: int) -> list[Generate]:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        items = [Item(content=self.input)] if isinstance(self.input, str) else self.input
        if len(items) > MAX_TURNS:
            raise fail("E1904", f"input: more than {MAX_TURNS} items.")
        turns = [ChatTurn("system", self.instructions)] if self.instructions else []
        turns += [item.message().turn() for item in items]
        choice: Choice = self.tool_choice.name if isinstance(self.tool_choice, FunctionChoice) else ""
        tools: Sequence[Tool] = self.tools if self.tool_choice != "none" else []
        asked = named(tools, choice) if choice else str(self.tool_choice)
        guide = guide_of(tools, asked, choice, self.parallel_tool_calls, self._form())
        most = tokens_for(self.max_output_tokens or self.max_tokens, context_tokens)
        return [sampled(Generate(tuple(turns), "", most, tools=tools_text(tools), guide=guide), self)]

    def _form(self) -> dict[str, Any]:
        form = self.text.format
        if form.type == "json_schema" and form.json_schema is None:
            raise fail("E1904", "text.format.schema: Field required.")
        return {"text": {}, "json_object": {"json": True}, "json_schema": {"json_schema": form.json_schema}}[form.type]


class ResponsesReply(Reply):
    """One answer as a list of items: a message's text, and calls."""

    def __init__(self, naming: Naming, asked: ResponsesRequest) -> None:
        self._serial, self._number = naming.serial, 0
        self._reader = CallReader() if asked.tools and asked.tool_choice != "none" else None
        self._items: list[dict[str, Any]] = []
        self._text: str | None = None
        given = asked.model_dump(
            include={"instructions", "temperature", "top_p", "max_output_tokens", "parallel_tool_calls"}
        )
        extra = asked.model_dump(mode="json", by_alias=True, include={"tools", "tool_choice", "text"})
        self._base: dict[str, Any] = {
            "id": f"resp_{naming.serial}", "object": "response", "created_at": naming.created_s, "model": naming.model,
            "error": None, "incomplete_details": None, "metadata": {}, "previous_response_id": None, "store": False,
            "truncation": "disabled", **given, **extra, "instructions": asked.instructions or None,
        }  # fmt: skip

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        self._take(answers[0].value.text)
        self._finish()
        return self._response(answers[0])

    def _response(self, answer: Finished | None) -> dict[str, Any]:
        if answer is None:
            return {**self._base, "status": "in_progress", "output": [], "usage": None}
        cut = answer.value.finish == "length"
        read, made = openai.counted([answer])
        usage = {
            "input_tokens": read, "output_tokens": made, "total_tokens": read + made,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        return {
            **self._base, "status": "incomplete" if cut else "completed", "output": self._items, "usage": usage,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "receipt": answer.receipt,
        }  # fmt: skip

    def _event(self, kind: str, **more: Any) -> bytes:
        self._number += 1
        return openai.event({"type": kind, "sequence_number": self._number - 1, **more}, kind)

    def opening(self) -> bytes:
        begun = self._response(None)
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def piece(self, index: int, text: str) -> bytes:
        return self._take(text)

    def ended(self, index: int, answer: Finished) -> bytes:
        return self._finish()

    def closing(self, answers: Sequence[Finished]) -> bytes:
        response = self._response(answers[0])
        return self._event(f"response.{response['status']}", response=response)

    def broken(self, error: FallowError) -> bytes:
        told = openai.error_reply(error)[1]["error"]
        return self._event("error", code=told["code"] or error.code, message=told["message"], param=None)

    def _take(self, text: str) -> bytes:
        said = self._reader.feed(text) if self._reader else [text]
        return b"".join(self._call(item) if isinstance(item, Call) else self._say(item) for item in said if item)

    def _finish(self) -> bytes:
        rest = self._reader.end() if self._reader else []
        data = b"".join(self._say(item) for item in rest if isinstance(item, str))
        if self._text is None and not self._items:
            data += self._say("")
        return data + self._close()

    def _say(self, text: str) -> bytes:
        data, place = b"", {"output_index": len(self._items), "content_index": 0, "item_id": self._message_id()}
        if self._text is None:
            self._text = ""
            item: dict[str, Any] = {**self._message(""), "content": [], "status": "in_progress"}
            data += self._event("response.output_item.added", output_index=len(self._items), item=item)
            data += self._event("response.content_part.added", **place, part=_part(""))
        self._text += text
        return data + (self._event("response.output_text.delta", **place, delta=text, logprobs=[]) if text else b"")

    def _message_id(self) -> str:
        return f"msg_{self._serial}{len(self._items)}"

    def _message(self, text: str) -> dict[str, Any]:
        about = {"id": self._message_id(), "type": "message", "role": "assistant", "status": "completed"}
        return {**about, "content": [_part(text)]}

    def _close(self) -> bytes:
        """End the message that is open."""
        if self._text is None:
            return b""
        place = {"output_index": len(self._items), "content_index": 0, "item_id": self._message_id()}
        item = self._message(self._text)
        data = self._event("response.output_text.done", **place, text=self._text, logprobs=[])
        data += self._event("response.content_part.done", **place, part=_part(self._text))
        data += self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        self._text = None
        return data

    def _call(self, call: Call) -> bytes:
        data, place = self._close(), len(self._items)
        identifier = f"fc_{self._serial}{place}"
        item = {
            "id": identifier, "type": "function_call", "call_id": f"call_{self._serial}{place}", "name": call.name,
            "arguments": call.arguments, "status": "completed",
        }  # fmt: skip
        begun = {**item, "arguments": "", "status": "in_progress"}
        where = {"output_index": place, "item_id": identifier}
        data += self._event("response.output_item.added", output_index=place, item=begun)
        data += self._event("response.function_call_arguments.delta", **where, delta=call.arguments)
        data += self._event(
            "response.function_call_arguments.done", **where, arguments=call.arguments, name=call.name
        )  # fmt: skip
        data += self._event("response.output_item.done", output_index=place, item=item)
        self._items.append(item)
        return data


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ResponsesDoor(Door):
    """OpenAI's responses."""

    path = "/v1/responses"
    body = ResponsesRequest

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(ResponsesRequest, data)
        if asked.n != 1:
            raise fail("E1904", "'n' is not supported.")
        asked.tasks(MAX_TOKENS)
        return ModelRequest(asked.model, asked.tasks, partial(ResponsesReply, asked=asked), asked.stream, asked.seed)

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return openai.error_reply(error)
