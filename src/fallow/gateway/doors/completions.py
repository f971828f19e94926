"""OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from fallow.errors import FallowError, fail
from fallow.gateway.doors import openai
from fallow.gateway.doors.chat import StreamOptions
from fallow.gateway.doors.door import Door, Finished, ModelRequest, Naming, Reply, tokens_for
from fallow.gateway.doors.fields import MAX_ALIKE, MAX_TOKENS, SharedFields, parse
from fallow.gateway.doors.tools import sampled
from fallow.kinds.generate.tasks import Generate


class CompletionRequest(SharedFields):
    """The body of /v1/completions. `logprobs` 0 asks for something too, hence it is named here."""

    harmless = frozenset({"user"})
    neutral: ClassVar = {"best_of": (1,), "repetition_penalty": (1,), "top_k": (-1,)}
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False
    logprobs: None = None
    stream_options: StreamOptions = Field(default=StreamOptions())

    def prompts(self) -> list[str]:
        """Raises UsageError E1904 for token numbers, and for more answers than a request may ask for."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(texts) < len(prompts):
            raise fail("E1904", "prompt: token numbers are not supported, only text.")
        if not texts or not all(texts):
            raise fail("E1904", "prompt: it is empty.")
        if len(texts) * self.n > MAX_ALIKE:
            raise fail("E1904", f"prompt: {len(texts) * self.n} answers; a request may ask for {MAX_ALIKE} at most.")
        return texts

    def tasks(self, context_tokens: int) -> list[Generate]:
        """The work that this request asks for, of a model that holds `context_tokens`."""
        most = tokens_for(self.max_tokens, context_tokens)
        return [sampled(Generate((), prompt, most), self) for prompt in self.prompts()]

    def echoes(self) -> list[str]:
        """What each answer begins with."""
        return [prompt if self.echo else "" for prompt in self.prompts() for _ in range(self.n)]


class CompletionReply(Reply):
    """Plain text, `echoes` before it."""

    def __init__(self, naming: Naming, echoes: Sequence[str], with_usage: bool) -> None:
        self._echoes, self._with_usage = echoes, with_usage
        self._base: dict[str, Any] = {
            "id": f"cmpl-{naming.serial}", "object": "text_completion", "created": naming.created_s,
            "model": naming.model,
        }  # fmt: skip

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        choices = [
            {"index": index, "finish_reason": answer.value.finish, "logprobs": None, "text": echo + answer.value.text}
            for index, (answer, echo) in enumerate(zip(answers, self._echoes, strict=True))
        ]
        return {**self._base, "choices": choices, "usage": openai.usage(answers), **openai.receipts(answers)}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return openai.event({**self._base, "choices": choices, **more})

    def opening(self) -> bytes:
        return b"".join(self.piece(index, echo) for index, echo in enumerate(self._echoes) if echo)

    def piece(self, index: int, text: str) -> bytes:
        return self._chunk([{"index": index, "text": text, "finish_reason": None, "logprobs": None}])

    def ended(self, index: int, answer: Finished) -> bytes:
        last = {"index": index, "finish_reason": answer.value.finish, "text": "", "logprobs": None}
        return self._chunk([last], receipt=answer.receipt)

    def closing(self, answers: Sequence[Finished]) -> bytes:
        return (self._chunk([], usage=openai.usage(answers)) if self._with_usage else b"") + openai.DONE

    def broken(self, error: FallowError) -> bytes:
        return openai.event(openai.error_reply(error)[1]) + openai.DONE


class CompletionDoor(Door):
    """OpenAI's plain completions."""

    path = "/v1/completions"
    body = CompletionRequest

    def read(self, data: bytes) -> ModelRequest:
        asked = parse(CompletionRequest, data)
        asked.tasks(MAX_TOKENS)
        return ModelRequest(
            asked.model, asked.tasks,
            lambda naming: CompletionReply(naming, asked.echoes(), asked.stream_options.include_usage),
            asked.stream, asked.seed, asked.n,
        )  # fmt: skip

    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        return openai.error_reply(error)
