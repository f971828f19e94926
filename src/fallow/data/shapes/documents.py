"""Rows that are no chats."""

from __future__ import annotations

from fallow.data.rows import Completion, Example, Prose, RowError
from fallow.data.shapes.shape import Fields, RowShape, text_of


class TextExample(RowShape):
    """A text, learned whole."""

    name = "text"
    keys = (frozenset({"text"}),)
    example = '{"text": "A text to learn."}'

    def read(self, fields: Fields) -> Example:
        return Prose(text_of(fields, "text"))


class PromptCompletion(RowShape):
    """A text and how it goes on, both as they are: no chat template is put around them."""

    name = "prompt and completion"
    keys = (frozenset({"prompt", "completion"}),)
    example = '{"prompt": "The sky is", "completion": " blue."}'

    def read(self, fields: Fields) -> Example:
        return Completion(text_of(fields, "prompt"), text_of(fields, "completion"))


class TokenNumbers(RowShape):
    """Numbers of some tokenizer, which nobody can check against the model's."""

    name = "tokens"
    keys = (frozenset({"input_ids"}),)
    example = ""

    def read(self, fields: Fields) -> Example:
        raise RowError(
            ", field input_ids: holds token numbers; give the text that they were made from", TextExample.example
        )
