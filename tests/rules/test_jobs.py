"""Tasks over leases: blame, retries and places."""

from __future__ import annotations

import pytest

from fallow.rules import jobs
from fallow.rules.jobs import AfterFailure, Attempt, Blame, FreeSeat

A, B, C = b"a" * 20, b"b" * 20, b"c" * 20
LOST = Attempt(A, Blame.PLACE)


@pytest.mark.parametrize(
    ("code", "retryable", "whose"),
    [
        ("E1701", False, Blame.WORK),
        ("E1704", True, Blame.PLACE),
        ("E1701", True, Blame.PLACE),
        ("E1602", False, Blame.PLACE),
    ],
)
def test_only_the_workload_can_speak_against_the_work(code: str, retryable: bool, whose: Blame) -> None:
    assert jobs.blame(code, retryable=retryable) is whose


def test_a_lost_provider_is_no_reason_to_give_up() -> None:
    assert jobs.judge([], 0) is AfterFailure.MOVE
    assert jobs.judge([LOST] * jobs.MAX_MOVES, 0) is AfterFailure.MOVE
    assert jobs.judge([LOST] * (jobs.MAX_MOVES + 1), 5) is AfterFailure.GIVE_UP


def test_one_provider_cannot_condemn_a_task_alone() -> None:
    says = Attempt(A, Blame.WORK, "E1701")
    assert jobs.judge([says, says, says], 3) is AfterFailure.MOVE
    assert jobs.judge([says, Attempt(B, Blame.WORK, "E1702")], 3) is AfterFailure.MOVE
    assert jobs.judge([says, Attempt(B, Blame.WORK, "E1701")], 3) is AfterFailure.GIVE_UP
    assert jobs.judge([says], 0) is AfterFailure.GIVE_UP


def test_the_place_with_the_state_comes_first() -> None:
    places = [FreeSeat(0, A, 0, 2, 100), FreeSeat(1, B, 1, 2, 100)]
    assert jobs.choose_place(places, 10, avoid={}, never=frozenset(), prefer=1) == 1
    assert jobs.choose_place(places, 10, avoid={}, never=frozenset(), prefer=None) == 0


def test_full_poor_and_barred_places_are_out() -> None:
    places = [FreeSeat(0, A, 2, 2, 100), FreeSeat(1, B, 0, 2, 9), FreeSeat(2, C, 0, 2, 10)]
    assert jobs.choose_place(places, 10, avoid={}, never=frozenset(), prefer=0) == 2
    assert jobs.choose_place(places, 10, avoid={}, never=frozenset({C}), prefer=None) is None


def test_those_that_failed_it_come_last_then_the_fastest() -> None:
    places = [
        FreeSeat(0, A, 0, 2, 99, 5),
        FreeSeat(1, B, 1, 2, 99, 5),
        FreeSeat(2, C, 0, 2, 99, 7),
        FreeSeat(3, C, 0, 2, 99, 7),
    ]
    assert jobs.choose_place(places, 1, avoid={}, never=frozenset(), prefer=None) == 2
    assert jobs.choose_place(places, 1, avoid={A: 1, C: 1}, never=frozenset(), prefer=None) == 1


def test_deadlines() -> None:
    assert jobs.deadline_ms(1_000, 60) == 1_000 + 60_000 + jobs.TASK_GRACE_MS
    assert jobs.after_absence_ms(5, 1_000) == 1_000 + jobs.MIN_RESTART_MS
    assert jobs.after_absence_ms(10**9, 1_000) == 10**9
