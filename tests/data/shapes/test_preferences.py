"""Rows that say which answer is better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.making import ANSWER, USER, failure, put


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        {"prompt": "a", "completion": "b", "label": True},
    ],
)
def test_preferences_are_known_and_refused(tmp_path: Path, fields: dict) -> None:
    assert failure(put(tmp_path, "a", json.dumps(fields))).code == "E1711"
