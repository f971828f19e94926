from __future__ import annotations

from fallow.interop.model import FileRefused, Problem, shown


def test_a_problem_in_one_line() -> None:
    assert str(Problem(line=3, field="a.b", met="'x'", accepted="a number")) == "line 3: a.b: 'x'; accepted: a number"
    assert str(Problem(line=0, field="", met="'x'", accepted="a number")) == "'x'; accepted: a number"
    assert str(
        FileRefused(Problem(line=0, field="", met="a", accepted="b"), Problem(line=1, field="", met="c", accepted="d"))
    )


def test_values_are_quoted_shortly() -> None:
    assert [shown(it) for it in (None, True, {}, [], "a\nb", 5)] == [
        "nothing",
        "true",
        "a mapping",
        "a list",
        "'a\\nb'",
        "5",
    ]
    assert len(shown("x" * 1000)) == 60
