"""Rows of a question and an answer in fields of their own. They become chats, in the words of the model's own
template."""

from __future__ import annotations

from typing import Any, cast

from fallow.data.rows import Chat, Example, MessageFields, RowError
from fallow.data.shapes.shape import Fields, RowShape, list_of, text_of


class Alpaca(RowShape):
    """An instruction, perhaps something that it is about, and the answer."""

    name = "Alpaca"
    keys = (frozenset({"instruction", "output"}), frozenset({"instruction", "response"}))
    example = '{"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"}'

    def read(self, fields: Fields) -> Example:
        question = text_of(fields, "instruction")
        for name in ("input", "context"):
            if fields.get(name) is not None and (more := text_of(fields, name)):
                question = f"{question}\n\n{more}"
        return _chat(fields, question, text_of(fields, "output" if "output" in fields else "response"))


class Question(RowShape):
    """A question and its answer."""

    name = "question and answer"
    keys = tuple(
        frozenset(pair)
        for pair in (("question", "answer"), ("query", "response"), ("prompt", "response"), ("input", "output"))
    )
    example = '{"question": "What is 2 + 3?", "answer": "5"}'

    def read(self, fields: Fields) -> Example:
        names = next(pair for pair in self.keys if pair <= set(fields))
        asked = next(name for name in ("question", "query", "prompt", "input") if name in names)
        (answer,) = names - {asked}
        return _chat(fields, text_of(fields, asked), text_of(fields, answer))


def _chat(fields: Fields, question: str, answer: str) -> Chat:
    turns: list[MessageFields] = []
    if fields.get("system"):
        turns.append({"role": "system", "content": text_of(fields, "system")})
    for pair in list_of(fields, "history") if fields.get("history") else []:
        words = cast(list[Any], pair) if isinstance(pair, list) else []
        if len(words) != 2 or not all(isinstance(word, str) for word in words):
            raise RowError(", field history: is a list of [question, answer] pairs, both strings")
        turns += _turns(*words)
    return Chat((*turns, *_turns(question, answer)))


def _turns(question: str, answer: str) -> list[MessageFields]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
