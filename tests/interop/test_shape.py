from __future__ import annotations

from typing import Any

from fallow.interop.shape import (
    MOST_TROUBLES,
    Rule,
    Trouble,
    choice,
    listed,
    mapping,
    passes,
    problems_of,
    text,
    whole,
    yes_no,
)
from fallow.interop.tree import compose, to_data


def wrong(rule: Rule, value: Any) -> list[tuple[tuple[str | int, ...], str]]:
    troubles: list[Trouble] = []
    rule(value, troubles)
    return [(trouble.path, trouble.met) for trouble in troubles]


def test_single_values() -> None:
    assert wrong(text(), "") == [] and wrong(text(least=1), "") == [((), "''")]
    assert wrong(text(pattern="a+"), "aab") == [((), "'aab'")]
    assert wrong(choice("a", "b"), "b") == [] and wrong(choice("a", "b"), ["a"]) == [((), "a list")]
    assert (
        wrong(whole(1, 3), 3) == [] and wrong(whole(1, 3), 4) == [((), "4")] and wrong(whole(0), True) == [((), "true")]
    )
    assert wrong(yes_no, False) == [] and wrong(yes_no, None) == [((), "nothing")]
    assert wrong(passes(bool, "something"), 0) == [((), "0")]


def test_paths_lead_from_the_outside_in() -> None:
    rule = mapping({"a": listed(mapping({"n": whole(1)}, required=("n",)))}, required=("b",), more=text())
    assert wrong(rule, {"a": [{"n": 1}, {"n": 0}, {"m": 1}], "x": 5}) == [
        (("a", 1, "n"), "0"), (("a", 2, "m"), "a field that is not known here"), (("a", 2), "n is missing"),
        (("x",), "5"),
        ((), "b is missing"),
    ]  # fmt: skip
    assert wrong(rule, []) == [((), "a list")]
    assert wrong(listed(text(), nothing=True), None) == [] and wrong(listed(text()), None) == [((), "nothing")]


def test_problems_come_in_the_order_of_lines_and_are_not_endless() -> None:
    root = compose(b"b: x\na: y\n")
    assert root is not None
    troubles: list[Trouble] = []
    mapping({"a": whole(1), "b": whole(1)})(to_data(root), troubles)
    assert [(it.line, it.field) for it in problems_of(troubles, root)] == [(1, "b"), (2, "a")]
    assert len(problems_of([Trouble("m", "a")] * 500, root)) == MOST_TROUBLES
