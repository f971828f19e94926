from __future__ import annotations

from fallow.interop.folded import Folded, each_once
from fallow.interop.shape import Trouble


def test_fields_in_any_case_with_the_paths_of_the_file() -> None:
    troubles: list[Trouble] = []
    found = Folded({"NAME": "x", "Parts": [{"a": 1}], "more": {"K": None}, "n": 5, "rest": 1}, ("top",), troubles)
    assert (found.word("Name"), found.at("name"), found.number("N")) == ("x", ("top", "NAME"), 5)
    assert found.parts("parts")[0].path == ("top", "Parts", 0)
    assert found.pairs("More") == {"K": ""} and found.part("More").path == ("top", "more")
    assert found.unasked() == ["rest"] and not troubles


def test_the_case_may_count() -> None:
    found = Folded({"Name": "x"}, (), [], exactly=True)
    assert (found.word("name", "none"), found.word("Name")) == ("none", "x")


def test_wrong_types_are_troubles_and_read_as_nothing() -> None:
    troubles: list[Trouble] = []
    found = Folded({"w": [], "n": "x", "l": 5, "p": 5, "s": [{}]}, (), troubles)
    assert (found.word("w"), found.number("n"), found.items("l"), found.pairs("p"), found.words("s")) == (
        "",
        None,
        [],
        {},
        (),
    )
    assert [trouble.path for trouble in troubles] == [("w",), ("n",), ("l",), ("p",), ("s", 0)]
    Folded(5, (), troubles)
    assert troubles[-1].met == "5"


def test_what_stands_twice() -> None:
    troubles: list[Trouble] = []
    each_once([("a", (0,)), ("", (1,)), ("", (2,)), ("a", (3,))], "the name", troubles.append)
    assert [trouble.path for trouble in troubles] == [(3,)]
