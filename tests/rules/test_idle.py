"""The owner's rule: how it is read, and when it lets work begin and makes it stop."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.rules.idle import ALWAYS, USUAL, IdleRule, IdleState, Reading, Window, busy_because, decide, parse

QUIET = Reading(input_s=3_600, cpu_percent=0, gpu_percent=0, day=2, minute=12 * 60)


def test_reads_a_whole_rule() -> None:
    rule = parse("input 90s and cpu 25% and gpu 5 and hours 22:00-07:00 and hours 12:00-13:30 and days mon-wed,sat")
    assert (rule.input_s, rule.cpu_percent, rule.gpu_percent) == (90, 25, 5)
    assert rule.windows == (Window(22 * 60, 7 * 60), Window(12 * 60, 13 * 60 + 30))
    assert rule.days == {0, 1, 2, 5}


def test_words_for_the_usual_cases() -> None:
    assert parse(" Always ") == ALWAYS
    assert parse("idle") == USUAL
    assert parse("idle and input 1m and hours 20:00-24:00") == replace(
        USUAL, input_s=60, windows=(Window(20 * 60, 24 * 60),)
    )
    assert parse("input 1m and idle").input_s == 60
    assert parse("days sat-mon").days == {5, 6, 0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never",
        "input",
        "input 10",
        "cpu 0",
        "cpu 101",
        "cpu -1",
        "x" * 999,
        "hours 24:00-01:00",
        "hours 1-2",
        "days monday",
        "days ,",
        "always and cpu 3",
        "cpu ²",
        "gpu %",
        "hours 25:00-01:00",
        "hours 07:00-07:00",
    ],
)
def test_refuses_anything_else_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        parse(text)


@given(st.text(alphabet="abcdeimnpu 0123456789:-,%hsy", max_size=60))
def test_any_text_gives_a_rule_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(text), IdleRule)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"input_s": 599}, "the owner is using the machine"),
        ({"cpu_percent": 30}, "other programs use the processor"),
        ({"gpu_percent": 10}, "other programs use the GPU"),
        ({"gpu_percent": None, "input_s": None}, ""),
        (
            {"gpu_percent": None, "input_s": None, "cpu_percent": None},
            "nothing that the rule asks for can be measured here",
        ),
    ],
)
def test_says_which_condition_does_not_hold(change: dict[str, float | None], reason: str) -> None:
    assert busy_because(USUAL, replace(QUIET, **change)) == reason


@pytest.mark.parametrize(
    ("day", "minute", "inside"),
    [
        (4, 22 * 60, True),
        (5, 6 * 60 + 59, True),
        (5, 7 * 60, False),
        (5, 22 * 60, False),
        (0, 60, False),
        (0, 22 * 60, True),
    ],
)
def test_hours_over_midnight_belong_to_the_day_on_which_they_began(day: int, minute: int, inside: bool) -> None:
    rule = parse("hours 22:00-07:00 and days mon-fri")
    assert (busy_because(rule, replace(QUIET, day=day, minute=minute)) == "") == inside


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_a_window_and_its_complement_share_no_minute(day: int, minute: int, first: int, last: int) -> None:
    reading = replace(QUIET, day=day, minute=minute)
    one, other = IdleRule(windows=(Window(first, last),)), IdleRule(windows=(Window(last, first),))
    if first != last:
        assert (busy_because(one, reading) == "") != (busy_because(other, reading) == "")


def test_starts_late_and_stops_at_once() -> None:
    state = IdleState()
    for now, idle in ((0, False), (19, False), (20, True), (21, True)):
        state = decide(USUAL, state, QUIET, now)
        assert state.idle == idle
    state = decide(USUAL, state, replace(QUIET, input_s=0), 22)
    assert (state.idle, state.reason) == (False, "the owner is using the machine")
    state = decide(USUAL, state, QUIET, 23)
    assert not state.idle
    assert decide(USUAL, state, QUIET, 43).idle


def test_noise_at_the_threshold_does_not_flip_the_answer() -> None:
    at_threshold = replace(QUIET, cpu_percent=32)
    idle = IdleState(True, "", 0)
    assert decide(USUAL, idle, at_threshold, 1).idle
    assert not decide(USUAL, idle, replace(QUIET, cpu_percent=38), 1).idle
    assert not decide(USUAL, IdleState(), at_threshold, 1).idle


def test_always_is_idle_at_once_whatever_happens() -> None:
    busy = Reading(0, 100, 100, 0, 0)
    assert decide(ALWAYS, IdleState(), busy, 0).idle
