"""What an engine is: something that continues a text with a language model, and the rules that all engines share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import ChatTurn, Generate, GenerateValue

Emit = Callable[[str], bool]
"""Called with each new piece of text as soon as it is sure; returns False when nobody wants more."""
MAX_STOP_CHARS = 1000


class Engine(Protocol):
    """A loaded model that answers. `answer` may be called from several threads at once."""

    @property
    def context_tokens(self) -> int:
        """The most tokens that a prompt and its answer may have together."""
        ...

    def answer(self, request: Generate, seed: int, emit: Emit) -> GenerateValue:
        """Answer `request`. The pieces given to `emit` joined are the value's text, which holds neither `resume` nor
        the stop string. Counts: `prompt_tokens` is everything that was read (so `resume` too), `completion_tokens`
        everything that was made, the end token included when one was made. When `emit` returns False the answer ends
        there, as CANCELLED (see `GenerateValue`). Errors: E1903 when the prompt leaves no room, E1904 for settings out
        of bounds, E1402 when `emit` returns False before it was given any text."""
        ...


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are chosen: `temperature` 0 takes the likeliest. The penalties are taken off the logits of tokens
    that the answer has already."""

    temperature: float
    top_p: float
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


def read_sampling(request: Generate) -> SamplingSettings:
    """Errors: E1904 naming what is out of bounds."""
    if bool(request.turns) == bool(request.prompt):
        raise fail("E1904", "Give either messages or a prompt, and not an empty one.")
    temperature = _number("temperature", request.temperature, 0.0, 10.0)
    top_p = _number("top_p", request.top_p, 0.0, 1.0)
    frequency = _number("frequency_penalty", request.frequency_penalty, -2.0, 2.0)
    presence = _number("presence_penalty", request.presence_penalty, -2.0, 2.0)
    if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in request.stop):
        raise fail("E1904", f"A stop string must have 1 to {MAX_STOP_CHARS} characters.")
    return SamplingSettings(temperature, top_p, frequency, presence)


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise fail("E1904", f"{name} is {text[:20]!r}; it must be a number between {low:g} and {high:g}.")
    return value


def split_opening(request: Generate) -> tuple[tuple[ChatTurn, ...], str]:
    """The turns that the model's template gets, and the beginning of the answer that whoever asks wrote: what an
    assistant turn at the end says. `resume` comes after it."""
    if request.turns and request.turns[-1].role == "assistant" and not request.turns[-1].more:
        return request.turns[:-1], request.turns[-1].content
    return request.turns, ""


def too_long(prompt_tokens: int, context_tokens: int) -> FallowError:
    """E1903 for a prompt that leaves no room for an answer."""
    return fail("E1903", f"The prompt has {prompt_tokens} tokens; the model is served with room for {context_tokens}.")


class StopWatch:
    """Finds stop strings in text that arrives in pieces, holding back what may turn out to be the start of one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What is sure to be answer now. After a stop string was found (`stopped`) nothing more is."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
