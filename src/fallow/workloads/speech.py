"""What engines that choose their own tokens share: a request as the prompt's tokens, and chosen tokens as text that is
told as soon as it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fallow.errors import fail
from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.workloads.chat_template import TemplateError, render
from fallow.workloads.engines import Emit, StopWatch, split_opening


def encode_prompt(tokenizer: Any, request: Generate) -> list[int]:
    """The tokens that an answer to `request` follows: through the model's chat template where there are turns. What is
    given of the answer already is part of them. Errors: E1904 when there is no template, or it refuses the turns."""
    if not request.turns:
        return cast(list[int], tokenizer(request.prompt + request.resume)["input_ids"])
    if not tokenizer.chat_template:
        raise fail("E1904", "This model has no chat template; use a plain completion.")
    turns, opening = split_opening(request)
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text = render(tokenizer, messages, answer_next=True)
    except TemplateError as error:
        raise fail("E1904", f"The model's chat template refuses the messages: {error}.") from error
    return cast(list[int], tokenizer(text + opening, add_special_tokens=False)["input_ids"])


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
    """One answer as it is made: at most `limit` tokens after `prompt`, until one of `ends` or a stop string comes or
    `emit` wants no more. `take` each token until it returns False, then ask for the `value`."""

    def __init__(self, speech: Speech, prompt_tokens: int, ends: frozenset[int], limit: int, emit: Emit) -> None:
        self._speech, self._prompt_tokens = speech, prompt_tokens
        self._ends, self._limit, self._emit = ends, limit, emit
        self._finish, self._made, self._told = "length", 0, 0

    def take(self, token: int) -> bool:
        """Tell what became sure by the next token. -> whether another one is wanted."""
        self._made += 1
        ended = token in self._ends
        piece = "" if ended else self._speech.feed(token)
        self._told += bool(piece)
        if piece and not self._emit(piece):
            self._finish = CANCELLED
        elif ended or self._speech.watch.stopped:
            self._finish = "stop"
        return self._finish == "length" and self._made < self._limit

    def value(self, logits: bytes = b"") -> GenerateValue:
        """The finished answer; tells what was held back."""
        if self._finish != CANCELLED and (last := self._speech.flush()):
            self._emit(last)
        count = self._told if self._finish == CANCELLED else self._made
        return GenerateValue("".join(self._speech.said), self._finish, self._prompt_tokens, count, logits)
