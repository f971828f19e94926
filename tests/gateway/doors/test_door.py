"""What all doors share."""

from __future__ import annotations

from fallow.gateway.doors.door import Naming, tokens_for
from fallow.gateway.doors.registry import DOORS


def test_an_answer_of_no_stated_length_leaves_room_for_the_prompt() -> None:
    assert [tokens_for(None, 4096), tokens_for(None, 128), tokens_for(None, 1), tokens_for(9, 128)] == [256, 64, 1, 9]


def test_names_count_seconds() -> None:
    assert Naming("1", "m", 17_999).created_s == 17


def test_no_two_doors_have_one_path() -> None:
    assert len({door.path for door in DOORS}) == len(DOORS)
