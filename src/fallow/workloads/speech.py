"""What engines that choose their own tokens share: a request as the prompt's tokens, and chosen tokens as text that is
told as soon as it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from fallow.errors import fail
from fallow.kinds.generate.sizes import most_read
from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.workloads.chat_template import TemplateError, render
from fallow.workloads.engines import Emit, StopWatch, split_opening
from fallow.workloads.shaping import Shaping
from fallow.workloads.tools import for_templates, knows_tools, read_messages, read_tools, without_tools


class Prompt(NamedTuple):
    """What an answer follows. The last of the `tokens` are the part of the answer that is `given` already."""

    tokens: list[int]
    given: tuple[int, ...]


def read_prompt(tokenizer: Any, request: Generate) -> Prompt:
    """The tokens that an answer to `request` follows: through the model's chat template where there are turns. Errors:
    E1904 when there is no template, it refuses the turns, or what it makes of them is more than can be charged."""
    text, special = request.prompt, True
    if request.turns:
        text, special = _rendered(tokenizer, request), False

    def encoded(text: str) -> list[int]:
        return cast(list[int], tokenizer(text, add_special_tokens=special)["input_ids"])

    tokens = encoded(text + request.resume)
    if len(tokens) > most_read(request):
        raise fail("E1904", f"The chat template makes {len(tokens):,} tokens of a request that is much shorter.")
    if not request.resume:
        return Prompt(tokens, ())
    asked = encoded(text)
    same = next(
        (n for n, (a, b) in enumerate(zip(asked, tokens, strict=False)) if a != b), min(len(asked), len(tokens))
    )
    return Prompt(tokens, tuple(tokens[same:]))


def _rendered(tokenizer: Any, request: Generate) -> str:
    if not tokenizer.chat_template:
        raise fail("E1904", "This model has no chat template; use a plain completion.")
    turns, opening = split_opening(request)
    messages, tools = read_messages(turns), read_tools(request.tools)
    if not knows_tools(str(tokenizer.chat_template)):
        messages, tools = without_tools(messages, tools), []
    try:
        return render(tokenizer, messages, for_templates(tools), answer_next=True) + opening
    except TemplateError as error:
        raise fail("E1904", f"The model's chat template refuses the messages: {error}.") from error


class Speech:
    """Turns tokens into text as they come: a character may take several tokens, and a stop string several more."""

    CONTEXT = 6

    def __init__(self, tokenizer: Any, prompt: Sequence[int], watch: StopWatch) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt[-self.CONTEXT :])
        self._start, self._shown = 0, len(self._tokens)
        self.watch = watch
        self.said: list[str] = []

    def feed(self, token: int) -> str:
        self._tokens.append(token)
        text = self._new_text()
        if not text or text.endswith("\ufffd"):
            return ""
        self._start, self._shown = self._shown, len(self._tokens)
        return self._say(self.watch.feed(text))

    def flush(self) -> str:
        """What is left to say at the end."""
        return self._say(self.watch.feed(self._new_text()) + self.watch.flush())

    def _new_text(self) -> str:
        before = self._text(self._tokens[self._start : self._shown])
        return self._text(self._tokens[self._start :])[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return cast(str, self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _say(self, text: str) -> str:
        if text:
            self.said.append(text)
        return text


class Telling:
    """One answer as it is made: at most `limit` tokens after `prompt`, until one of `ends` or a stop string comes, it
    has the form that was asked for, or `emit` wants no more. Until it is `over`, `take` each token; then ask for the
    `value`."""

    def __init__(
        self, speech: Speech, prompt_tokens: int, ends: frozenset[int], limit: int, emit: Emit, shaping: Shaping
    ) -> None:
        self._speech, self._prompt_tokens = speech, prompt_tokens
        self._ends, self._limit, self._emit, self._shaping = ends, limit, emit, shaping
        self._finish, self._made, self._told = "stop" if shaping.complete else "length", 0, 0

    @property
    def over(self) -> bool:
        """No other token is wanted."""
        return self._finish != "length" or self._made >= self._limit

    def take(self, token: int) -> bool:
        """Tell what became sure by the next token, which the shaping took already. -> whether another one is wanted.
        Errors: E1904 when the form that was asked for cannot be had."""
        self._shaping.check()
        self._made += 1
        ended = token in self._ends
        piece = "" if ended else self._speech.feed(token)
        self._told += bool(piece)
        if piece and not self._emit(piece):
            self._finish = CANCELLED
        elif ended or self._shaping.complete or self._speech.watch.stopped:
            self._finish = "stop"
        return not self.over

    def value(self, logits: bytes = b"") -> GenerateValue:
        """The finished answer; tells what was held back."""
        if self._finish != CANCELLED and (last := self._speech.flush()):
            self._emit(last)
        count = self._told if self._finish == CANCELLED else self._made
        return GenerateValue("".join(self._speech.said), self._finish, self._prompt_tokens, count, logits)
