"""What OpenAI's doors share: errors, usage and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fallow.errors import FallowError
from fallow.gateway.doors.door import Finished

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


def counted(answers: Sequence[Finished]) -> tuple[int, int]:
    """-> the tokens that were read and made. Each of several answers to one prompt read it, and is paid for that."""
    return sum(a.value.prompt_tokens for a in answers), sum(a.value.completion_tokens for a in answers)


def usage(answers: Sequence[Finished]) -> dict[str, int]:
    """Token counts as OpenAI's completions name them."""
    read, made = counted(answers)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def receipts(answers: Sequence[Finished]) -> dict[str, Any]:
    """The receipt's id; those of all, where there are several answers."""
    ids = [answer.receipt for answer in answers]
    return {"receipt": ids[0]} if len(ids) == 1 else {"receipt": ids[0], "receipts": ids}


def event(data: Any, name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
