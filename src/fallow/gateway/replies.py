"""OpenAI's answers and errors, as bytes on the wire. Chunks are built by msgspec, since there is one per token."""

from __future__ import annotations

from typing import Any

import msgspec

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import GenerateValue

DONE = b"data: [DONE]\n\n"

# status, OpenAI's type and code, for the errors that clients tell apart; the rest follow from the class
_SHAPES: dict[str, tuple[int, str, str | None]] = {
    "E1901": (404, "invalid_request_error", "model_not_found"),
    "E1902": (401, "invalid_request_error", "invalid_api_key"),
    "E1903": (400, "invalid_request_error", "context_length_exceeded"),
    "E1904": (400, "invalid_request_error", None),
    "E1905": (429, "insufficient_quota", "insufficient_quota"),
    "E1906": (503, "server_error", "no_provider"),
    "E2004": (503, "server_error", "unavailable"),
    "E1803": (429, "rate_limit_error", "rate_limit_exceeded"),
}


def error_reply(error: FallowError) -> tuple[int, dict[str, Any]]:
    """-> HTTP status and body in OpenAI's shape, with Fallow's code, the next step and where the money is beside it."""
    default = (503, "server_error", "unavailable") if error.retryable else (500, "server_error", None)
    status, kind, code = _SHAPES.get(error.code, default)
    param = "model" if error.code == "E1901" else None
    body = {"message": error.what, "type": kind, "param": param, "code": code}
    return status, {"error": body | {"fallow": {"code": error.code, "next": error.next_step, "money": error.money}}}


def usage(value: GenerateValue) -> dict[str, int]:
    """Token counts as OpenAI names them."""
    total = value.prompt_tokens + value.completion_tokens
    return {
        "prompt_tokens": value.prompt_tokens,
        "completion_tokens": value.completion_tokens,
        "total_tokens": total,
    }


class ReplyFormat:
    """How one answer looks: `chat` or plain completion, whole or in chunks. `created_s` is Unix seconds."""

    def __init__(self, chat: bool, identifier: str, model: str, created_s: int) -> None:
        self.chat = chat
        self._base: dict[str, Any] = {"id": identifier, "created": created_s, "model": model}

    def whole(self, value: GenerateValue, receipt: str) -> dict[str, Any]:
        """A complete answer."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": value.finish, "logprobs": None}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": value.text, "refusal": None}
        else:
            choice["text"] = value.text
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._base, "object": kind, "choices": [choice], "usage": usage(value), "receipt": receipt}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return b"data: " + msgspec.json.encode({**self._base, "object": kind, "choices": choices, **more}) + b"\n\n"

    def opening(self) -> bytes:
        """The chunk before the first token; empty for plain completions, which have none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def piece(self, text: str) -> bytes:
        """The chunk of one piece of text."""
        if self.chat:
            return self._chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}])
        return self._chunk([{"index": 0, "text": text, "finish_reason": None, "logprobs": None}])

    def closing(self, value: GenerateValue, receipt: str, with_usage: bool) -> bytes:
        """The last chunks: why it ended, the receipt's id, usage when asked for, and the end mark."""
        last: dict[str, Any] = {"index": 0, "finish_reason": value.finish}
        last |= {"delta": {}} if self.chat else {"text": "", "logprobs": None}
        tail = self._chunk([], usage=usage(value)) if with_usage else b""
        return self._chunk([last], receipt=receipt) + tail + DONE

    def broken(self, error: FallowError) -> bytes:
        """An error after the stream began: one error event, then the end mark."""
        return b"data: " + msgspec.json.encode(error_reply(error)[1]) + b"\n\n" + DONE
