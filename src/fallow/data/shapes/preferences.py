"""Rows that say which answer is better. They are known, so that nobody learns from the worse one by mistake."""

from __future__ import annotations

from fallow.data.rows import Example, UnbuiltError
from fallow.data.shapes.shape import Fields, RowShape

INSTEAD = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "the better answer"}]}'


class Preference(RowShape):
    """A better and a worse answer."""

    name = "preference pair"
    keys = (frozenset({"chosen", "rejected"}), frozenset({"preferred_output", "non_preferred_output"}))
    example = ""

    def read(self, fields: Fields) -> Example:
        raise UnbuiltError("is a pair of a better and a worse answer, which takes DPO; there is none yet", INSTEAD)


class Rating(RowShape):
    """An answer with a thumb up or down."""

    name = "rated answer"
    keys = (frozenset({"prompt", "completion", "label"}),)
    example = ""

    def read(self, fields: Fields) -> Example:
        raise UnbuiltError("is an answer with a label, which takes KTO; there is none", INSTEAD)
