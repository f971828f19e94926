"""What a door is: one way in which applications ask for completions, with its own paths, bodies, events and errors. All
doors lead to the same answers, budgets and receipts; a new one is a file in this folder and a line in `registry.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fallow.errors import FallowError
from fallow.gateway.doors.fields import BodyFields
from fallow.kinds.generate.tasks import Generate, GenerateValue


@dataclass(frozen=True)
class Naming:
    """What a reply calls itself: `serial` is unlike any other's; `created_ms` is when it was asked for."""

    serial: str
    model: str
    created_ms: int

    @property
    def created_s(self) -> int:
        return self.created_ms // 1000


@dataclass(frozen=True)
class Finished:
    """One answer that is there whole, and the id of its receipt ("" when that was lost)."""

    value: GenerateValue
    receipt: str


class Reply(ABC):
    """How the answers to one request look. `whole` gives them at once; a stream is `opening`, then for each answer its
    pieces and its end, then `closing`; or `broken` in the place of what was still to come. Answers are told apart by
    their index."""

    media_type = "text/event-stream; charset=utf-8"

    @abstractmethod
    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        """The body of a reply that is not streamed."""

    def opening(self) -> bytes:
        """Sent when the first piece of text is there."""
        return b""

    @abstractmethod
    def piece(self, index: int, text: str) -> bytes:
        """A piece of answer `index`."""

    @abstractmethod
    def ended(self, index: int, answer: Finished) -> bytes:
        """The end of answer `index`, after all of its pieces."""

    @abstractmethod
    def closing(self, answers: Sequence[Finished]) -> bytes:
        """The end of the stream."""

    @abstractmethod
    def broken(self, error: FallowError) -> bytes:
        """The end of a stream that failed."""


@dataclass(frozen=True)
class ModelRequest:
    """A request that was understood. `tasks` gives the work it asks for, of a model that holds so many tokens: `alike`
    answers to each prompt, side by side, which differ by their seeds alone."""

    model: str
    tasks: Callable[[int], list[Generate]]
    reply: Callable[[Naming], Reply]
    stream: bool = False
    seed: int | None = None
    alike: int = 1


class Door(ABC):
    """One kind of request: a `body` that is POSTed to `path`."""

    path: str
    body: type[BodyFields]

    @abstractmethod
    def read(self, data: bytes) -> ModelRequest:
        """Raises UsageError E1904 that names the first field that is wrong or not supported."""

    @abstractmethod
    def refusal(self, error: FallowError) -> tuple[int, dict[str, Any]]:
        """-> HTTP status and body, as this door's clients read them."""


def tokens_for(asked: int | None, context_tokens: int) -> int:
    """The most tokens that an answer may have: what was asked for, else a default that leaves half of the context to
    the prompt."""
    return asked or min(DEFAULT_MAX_TOKENS, max(1, context_tokens // 2))


DEFAULT_MAX_TOKENS = 256
