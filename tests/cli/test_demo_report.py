"""The demo's own judgement: each broken promise is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fallow.cli.demo_report import shortcomings

GOOD: dict[str, Any] = {
    "data_bytes": 190_000,
    "providers": [
        {"id": "0x1", "role": "honest", "tasks": 3, "paid_ucr": 5, "slashed_ucr": 0},
        {"id": "0x2", "role": "cheat", "tasks": 1, "paid_ucr": 0, "slashed_ucr": 9},
    ],
    "train": {"rounds": 2, "loss_first": 4.5, "loss_last": 4.2, "bytes_sent": 1, "state_hashes_agree": True},
    "cheat": {"kind": "lazy", "caught": True, "paid_ucr": 0, "paid_rounds": 0},
    "ledger": {"minted_ucr": 7, "sum_ucr": 7, "conserved": True},
    "chat": {"prompt": "p", "answer": "a", "tokens": 1, "ttft_ms": 1.0},
    "receipts": [
        {"id": "r_1", "holds": True, "open": False, "changed_byte_noticed": True},
        {"id": "r_2", "holds": False, "open": True, "changed_byte_noticed": True},
    ],
}


def test_a_kept_promise_has_no_shortcomings() -> None:
    assert shortcomings(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data_bytes",), 99_999),
        (("providers", 0, "paid_ucr"), 0),
        (("providers", 0, "slashed_ucr"), 1),
        (("train", "rounds"), 1),
        (("train", "loss_last"), 4.5),
        (("train", "loss_first"), None),
        (("train", "state_hashes_agree"), False),
        (("cheat", "caught"), False),
        (("cheat", "paid_rounds"), 1),
        (("ledger", "conserved"), False),
        (("chat", "answer"), " "),
        (("receipts",), []),
        (("receipts", 0, "holds"), False),
        (("receipts", 0, "changed_byte_noticed"), False),
    ],
)
def test_each_broken_promise_is_named(path: tuple[Any, ...], value: object) -> None:
    report = copy.deepcopy(GOOD)
    place: Any = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(shortcomings(report)) == 1


@pytest.mark.parametrize("kind", ["skip", "flip"])
def test_cheats_that_are_found_by_chance_may_be_missed(kind: str) -> None:
    report = copy.deepcopy(GOOD)
    report["cheat"] |= {"kind": kind, "caught": False, "paid_rounds": 2}
    assert shortcomings(report) == []
