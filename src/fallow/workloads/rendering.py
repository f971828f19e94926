"""Rows of training data as a model's own tokens, and which of these are learned.

Chats go through the model's chat template, with tools. What an assistant says is found in one of two ways. A template
that marks it (`{% generation %}`) is believed. Else the chat is written up to each answer, with the opening that the
template gives to an answer, and up to its end: what the second has more than the first is what the model would have to
say itself, the end of the turn included. Where a template writes an answer otherwise once the chat goes on (some drop
what was thought), that answer is learned in a chat of its own that ends with it, as the model would have seen it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from transformers.utils.chat_template_utils import render_jinja_template

from fallow.data.formats.plain import parts_of
from fallow.data.rows import Chat, Completion, Example, MessageFields, Prose
from fallow.errors import fail
from fallow.workloads.chat_template import TemplateError, bounded, limited
from fallow.workloads.packing import Ids, Passage

ASSISTANT, ALL = "assistant", "all"
LOSSES = (ASSISTANT, ALL)
MOST_TEXTS = 400
"""For so many texts a template gets more time than for one, and no more for more."""
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class CharSpan(NamedTuple):
    """Characters of a text, from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True)
class MaskedText:
    """A chat, or its beginning, as text, and what is learned of it."""

    text: str
    spans: tuple[CharSpan, ...]


@dataclass
class Heard:
    """What happened while rows were rendered: chats that became `several` because of how the template writes earlier
    answers, answers that do not begin as the template `opens` them, and answers that end without an `end` that the
    model knows."""

    several: int = 0
    opens: int = 0
    endless: int = 0
    first: MaskedText | None = None
    within: list[Ids] = field(default_factory=list[Ids])


class Renderer:
    """Renders rows for one tokenizer. `loss`: "assistant" (of chats what assistants say, of a completion what follows
    the prompt) or "all"."""

    def __init__(self, tokenizer: Any, loss: str = ASSISTANT) -> None:
        self._tokenizer, self._loss = tokenizer, loss
        self._before, self._after = _specials(tokenizer)
        self.heard = Heard()

    def pieces(self, rows: Iterable[Example]) -> Iterator[Passage]:
        """The rows' documents. Errors: UsageError E1702 with the row's place where the model's template refuses a chat,
        or nobody can say which part of it an assistant says; E1712 for a chat where there is no template."""
        for row in rows:
            match row:
                case Prose():
                    yield from self._prose(row)
                case Completion():
                    yield self._completion(row)
                case Chat():
                    for written in self._chat(row):
                        yield self._piece(written)

    # texts ------------------------------------------------------------------------------------------------------------

    def _prose(self, row: Prose) -> Iterator[Passage]:
        heard = self.heard
        if heard.first is None:
            heard.first = MaskedText(row.text, (CharSpan(0, len(row.text)),))
        if not heard.within:
            heard.within.append(self._before)
        heard.within += [_ids(self._tokenizer(part, add_special_tokens=False)) for part in parts_of(row.text)]
        if not row.continues:
            tokens = self._ended(np.concatenate(heard.within))
            heard.within.clear()
            yield Passage(tokens, np.ones(len(tokens), dtype=np.bool_), text=True)

    def _completion(self, row: Completion) -> Passage:
        text, start = row.prompt + row.completion, len(row.prompt) if self._loss == ASSISTANT else 0
        written = MaskedText(text, (CharSpan(start, len(text)),))
        self.heard.first = self.heard.first or written
        inner = self._piece(written)
        tokens = self._ended(np.concatenate([self._before, inner.tokens]))
        learned = np.ones(len(tokens), dtype=np.bool_)
        learned[: len(self._before)] = self._loss == ALL
        learned[len(self._before) :][: len(inner.learned)] = inner.learned
        return Passage(tokens, learned)

    def _ended(self, tokens: Ids) -> Ids:
        """With what the tokenizer puts after a text, and an end of text in any case."""
        end = self._tokenizer.eos_token_id
        whole = np.concatenate([tokens, self._after])
        if isinstance(end, int) and (not len(whole) or whole[-1] != end):
            whole = np.append(whole, np.int32(end))
        return whole

    def _piece(self, written: MaskedText) -> Passage:
        """The tokens of a text; one that reaches into a span is learned."""
        found = self._tokenizer(written.text, add_special_tokens=False, return_offsets_mapping=True)
        places = np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        learned = np.zeros(len(places), dtype=np.bool_)
        for start, end in written.spans:
            learned |= (places[:, 0] < end) & (places[:, 1] > start)
        return Passage(_ids(found), learned)

    # chats ------------------------------------------------------------------------------------------------------------

    def _chat(self, row: Chat) -> list[MaskedText]:
        if not self._tokenizer.chat_template:
            raise fail("E1712", f"{row.place} is a chat, and this model has no chat template.")
        answers = [
            number
            for number, message in enumerate(row.messages)
            if message["role"] == "assistant" and number >= row.learn_from and message.get("weight", 1)
        ]
        try:
            written = limited(lambda: self._write(row, answers), min(2 * len(row.messages), MOST_TEXTS))
        except TemplateError as error:
            raise fail("E1702", f"{row.place}: the model's chat template refuses the chat: {error}.") from error
        self.heard.several += len(written) > 1
        self.heard.first = self.heard.first or written[0]
        return written

    def _write(self, row: Chat, answers: list[int]) -> list[MaskedText]:
        template = cast(str, self._tokenizer.get_chat_template(None, list(row.tools) or None))
        say = _Script(self._tokenizer, row, template)
        try:
            whole = say.upto(len(row.messages))
        except TypeError:  # there are templates that take arguments for text
            say = _Script(self._tokenizer, row, template, arguments_as_text=True)
            whole = say.upto(len(row.messages))
        if self._loss == ALL:
            return [MaskedText(whole, (CharSpan(0, len(whole)),))]
        if _MARKED.search(template):
            return [self._marked(row, say, answers)]
        return self._compared(row, say, whole, answers)

    def _marked(self, row: Chat, say: _Script, answers: list[int]) -> MaskedText:
        """By the template's own marks, of which there is one for each answer."""
        text, spans = say.marked()
        everybody = [number for number, message in enumerate(row.messages) if message["role"] == "assistant"]
        if answers != everybody:
            if len(spans) != len(everybody):
                what = f"the chat template marks {len(spans)} answers where there are {len(everybody)}"
                raise TemplateError(f"{what}, so nobody can say which of them are not to be learned")
            spans = [span for span, number in zip(spans, everybody, strict=True) if number in answers]
        return MaskedText(text, tuple(spans))

    def _compared(self, row: Chat, say: _Script, whole: str, answers: list[int]) -> list[MaskedText]:
        """By writing the chat up to each answer and to its end. A text holds as many answers as stand in it as they
        would if it ended there; the others are learned in texts of their own."""
        spans: dict[int, CharSpan] = {}
        found: list[MaskedText] = []
        text, last, left = whole, len(row.messages), answers
        while left or not found:
            here: dict[int, CharSpan] = {}
            for number in (n for n in left if n < last):
                spans[number] = spans.get(number) or self._span(say, number)
                if (span := say.standing(text, number, spans[number])) is not None:
                    here[number] = span
            if here or not answers:
                found.append(MaskedText(text, tuple(here.values())))
            left = [n for n in left if n not in here]
            if left:
                last = left[-1] + 1
                text = say.upto(last)
        return found

    def _span(self, say: _Script, number: int) -> CharSpan:
        """What the model has to say itself of message `number`, in the chat that ends with it."""
        ended, asked = say.upto(number + 1), say.asked(number)
        start = len(asked) or _shared(say.otherwise(number), ended)
        if not ended.startswith(asked):
            start = min(_shared(asked, ended), _shared(say.otherwise(number), ended))
            if start < len(say.upto(number)):
                raise TemplateError(f"it writes what comes before message {number + 1} in two ways")
            self.heard.opens += 1
        self.heard.endless += not ended.rstrip().endswith(say.ends)
        return CharSpan(start, len(ended))


class _Script:
    """A chat as the template writes it, up to any message. What was written last is kept."""

    def __init__(self, tokenizer: Any, row: Chat, template: str, *, arguments_as_text: bool = False) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._messages = [_for_template(message, template) for message in row.messages]
        if arguments_as_text:
            self._messages = [_with_text(message) for message in self._messages]
        self._tools = list(row.tools) or None
        self._last: tuple[int, str] = (0, "")
        self._size = sum(len(str(message)) for message in (*row.messages, *row.tools))
        self.ends = tuple(tokenizer.get_added_vocab()) or (tokenizer.eos_token or "\0",)

    def upto(self, count: int) -> str:
        """The first `count` messages."""
        if self._last[0] != count:
            self._last = (count, self._text(count, opened=False))
        return self._last[1]

    def asked(self, count: int) -> str:
        """The same and the beginning of an answer."""
        return self._text(count, opened=True)

    def otherwise(self, number: int) -> str:
        """The chat up to and with message `number`, which begins with another letter: it differs where that begins."""
        message = self._messages[number]
        changed = message | {"content": ("B" if message["content"][:1] == "A" else "A") + message["content"]}
        return self._written([*self._messages[:number], changed], opened=False)

    def standing(self, text: str, number: int, span: CharSpan) -> CharSpan | None:
        """Where answer `number` stands in `text`, if it does as in the chat that ends with it, where it is `span`. A
        token that closes a whole chat, after the end of the turn, may be missing."""
        ended = self.upto(number + 1)
        if text.startswith(ended):
            return span
        closed = next((ended.rstrip().removesuffix(end) for end in self.ends if ended.rstrip().endswith(end)), "")
        turned = len(closed) > span.start and closed.rstrip().endswith(self.ends)
        return CharSpan(span.start, len(closed)) if turned and text.startswith(closed) else None

    def marked(self) -> tuple[str, list[CharSpan]]:
        """The whole chat, and what the template marks as said by assistants."""
        texts, marks = render_jinja_template(
            conversations=[self._messages], tools=cast(Any, self._tools), chat_template=self._template,
            return_assistant_tokens_mask=True, **self._tokenizer.special_tokens_map,
        )  # fmt: skip
        return bounded(texts[0], self._size), [CharSpan(*mark) for mark in cast(list[tuple[int, int]], marks[0])]

    def _text(self, count: int, *, opened: bool) -> str:
        if not count:  # nobody can ask for what no message comes before
            return ""
        return self._written(self._messages[:count], opened=opened)

    def _written(self, messages: list[MessageFields], *, opened: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, tools=self._tools, tokenize=False, add_generation_prompt=opened
        )
        return bounded(cast(str, text), self._size)


def _with_text(message: MessageFields) -> MessageFields:
    """With the arguments of its calls as JSON."""
    if "tool_calls" not in message:
        return message
    functions = [call["function"] for call in message["tool_calls"]]
    calls = [
        call | {"function": function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}}
        for call, function in zip(message["tool_calls"], functions, strict=True)
    ]
    return message | {"tool_calls": calls}


def _shared(one: str, other: str) -> int:
    """How far two texts are alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return low


def _for_template(message: MessageFields, template: str) -> MessageFields:
    """A message without what is ours. A template that does not know developers takes their word for the system's."""
    found = {name: value for name, value in message.items() if name != "weight"}
    if found["role"] == "developer" and "developer" not in template:
        found["role"] = "system"
    return found


def _specials(tokenizer: Any) -> tuple[Ids, Ids]:
    """What the tokenizer puts before and after every text."""
    bare, full = _ids(tokenizer("a", add_special_tokens=False)), _ids(tokenizer("a"))
    for start in range(len(full) - len(bare) + 1):
        if (full[start : start + len(bare)] == bare).all():
            return full[:start], full[start + len(bare) :]
    return full[:0], full[:0]


def _ids(found: Any) -> Ids:
    return np.asarray(found["input_ids"], dtype=np.int32)


def shown(written: MaskedText, limit: int = 1_200) -> Sequence[tuple[str, bool]]:
    """A text in parts, each with whether it is learned; the middle of long ones is left out."""
    parts: list[tuple[str, bool]] = []
    at = 0
    for start, end in written.spans:
        parts += [(written.text[at:start], False), (written.text[start:end], True)]
        at = end
    parts.append((written.text[at:], False))
    room = max(40, limit // max(1, len(parts)))
    return [
        (text if len(text) <= room else f"{text[: room // 2]} […] {text[-room // 2 :]}", on)
        for text, on in parts
        if text
    ]
