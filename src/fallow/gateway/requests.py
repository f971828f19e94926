"""OpenAI's request bodies, as far as Fallow answers them, and their translation into `Generate` tasks. What is not
supported is refused by name instead of being ignored: an ignored `tools` or `n` gives wrong answers in silence."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import ChatTurn, Generate

MAX_BODY_BYTES = 1 << 20
MAX_TURNS = 1024
DEFAULT_MAX_TOKENS = 256
_UNSUPPORTED = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "response_format", "audio", "best_of",
                "suffix", "echo", "tool_choice", "modalities")  # fmt: skip


class StreamOptions(BaseModel):
    """`include_usage` asks for a last chunk with token counts."""

    include_usage: bool = False


class TextPart(BaseModel):
    """A part of a message's content; images and audio are refused."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class CompletionBody(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="allow")
    model: str = Field(min_length=1, max_length=200)
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    n: Literal[1] = 1
    stop: str | list[str] | None = Field(default=None, max_length=4000)
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def wanted_tokens(self, context_tokens: int) -> int:
        """The most tokens the answer may have: what was asked for, else a default that leaves half of the context to
        the prompt."""
        return self.max_tokens or min(DEFAULT_MAX_TOKENS, max(1, context_tokens // 2))

    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop[:16])

    def refuse_unsupported(self) -> None:
        """Raises UsageError E1904 for an option that would be ignored otherwise."""
        extra: dict[str, Any] = self.model_extra or {}
        for name in _UNSUPPORTED:
            if extra.get(name):
                raise fail("E1904", f"{name!r} is not supported.")


class ChatRequest(CompletionBody):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_TURNS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 20)

    def wanted_tokens(self, context_tokens: int) -> int:
        return self.max_completion_tokens or super().wanted_tokens(context_tokens)

    def task(self, context_tokens: int) -> Generate:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        turns = tuple(ChatTurn("system" if t.role == "developer" else t.role, t.text()) for t in self.messages)
        most = self.wanted_tokens(context_tokens)
        return Generate(turns, "", most, f"{self.temperature:g}", f"{self.top_p:g}", self.stops())


class CompletionRequest(CompletionBody):
    """The body of /v1/completions."""

    prompt: str = Field(min_length=1)

    def task(self, context_tokens: int) -> Generate:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        most = self.wanted_tokens(context_tokens)
        return Generate((), self.prompt, most, f"{self.temperature:g}", f"{self.top_p:g}", self.stops())


R = TypeVar("R", bound=CompletionBody)


def parse(kind: type[R], body: bytes) -> R:
    """Raises UsageError E1904 that names the first wrong field."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error
    request.refuse_unsupported()
    return request


def _refusal(error: ValidationError) -> FallowError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or "body"
    return fail("E1904", f"{place}: {first['msg']}.")


def prompt_bytes(task: Generate) -> int:
    """A bound on the prompt's tokens before anything is tokenized: no tokenizer in use makes more than one token of a
    byte, and a template adds a few per turn."""
    return len(task.prompt.encode()) + sum(len(turn.content.encode()) + 16 for turn in task.turns) + 64
