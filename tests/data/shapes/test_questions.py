"""Rows of a question and an answer."""

from __future__ import annotations

import pytest
from tests.data.making import ANSWER, USER

from fallow.data.rows import Chat
from fallow.data.shapes.registry import read_row


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"instruction": "Hi", "output": "Ho"}, [USER, ANSWER]),
        ({"instruction": "Hi", "input": "", "output": "Ho", "system": ""}, [USER, ANSWER]),
        ({"instruction": "Hi", "context": "you", "response": "Ho"}, [{**USER, "content": "Hi\n\nyou"}, ANSWER]),
        ({"instruction": "Hi", "output": "Ho", "history": [["Hi", "Ho"]]}, [USER, ANSWER, USER, ANSWER]),
        ({"question": "Hi", "answer": "Ho"}, [USER, ANSWER]),
        ({"prompt": "Hi", "response": "Ho"}, [USER, ANSWER]),
    ],
)
def test_they_become_chats(fields: dict, messages: list) -> None:
    assert read_row(fields, "")[0] == Chat(tuple(messages))
