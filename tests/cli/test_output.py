from __future__ import annotations

import io
import json

import pytest

from fallow.cli import output
from fallow.cli.output import Output, table
from fallow.errors import FallowError, fail


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_data_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.data({"a": 1}, "one")
    out.say("hm")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\n", "hm\n")


def test_json_is_one_line_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.data({"a": "ü"}, "")
    out.data({"b": 2}, "")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": "ü"}, {"b": 2}]


def test_pieces_are_left_out_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).piece("x")
    Output(as_json=False).piece("y")
    assert capsys.readouterr().out == "y"


def test_numbers_stand_on_the_right_and_nothing_trails() -> None:
    assert table(("NAME", "N"), [("a", "1"), ("long", "10")]).splitlines() == ["NAME   N", "a      1", "long  10"]


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False), ("no\n", False)]
)
def test_spending_needs_a_yes(typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = Screen(typed)
    monkeypatch.setattr("sys.stdin", keyboard)
    monkeypatch.setattr("sys.stderr", Screen())
    if agreed:
        Output(as_json=False).confirm("Spend?", yes=False)
    else:
        with pytest.raises(FallowError) as caught:
            Output(as_json=False).confirm("Spend?", yes=False)
        assert caught.value.code == "E2006"


def test_where_nobody_can_be_asked_only_yes_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(FallowError):
        Output(as_json=False).confirm("Spend?", yes=False)
    Output(as_json=False).confirm("Spend?", yes=True)


def test_progress_off_a_terminal_is_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=False).progress("work") as bar:
        bar.update(1, 2)
        bar.update(1, 2)
        bar.part("n_1", 1, 2, "left out")
        bar.part("n_1", 2, 2, "loss 3")
        bar.update(2, 2, "last")
        bar.say("[note]")
    assert capsys.readouterr().err == "work 1/2\n  n_1 2/2  loss 3\nwork 2/2  last\n[note]\n"


def test_progress_in_json_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=True).progress("work") as bar:
        bar.update(1, 2)
        bar.say("note")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Output(as_json=False).progress("work") as bar:
        bar.update(1, 2, "on it")
        bar.part("n_1", 1, 8, "loss 3.5")
        bar.say("[a note]")
    assert "work" in screen.getvalue()
    assert "[a note]" in screen.getvalue()
    assert "1/8" in screen.getvalue()
    assert "loss 3.5" in screen.getvalue()


def test_a_trace_is_shown_to_those_who_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Output(as_json=False).trace(ValueError("x"))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FALLOW_TRACE", "1")
    Output(as_json=False).trace(ValueError("x"))
    assert "ValueError: x" in capsys.readouterr().err


def test_an_error_says_where_the_money_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.Output(as_json=False).error(fail("E1301", "Too little."))
    assert "Money: Nothing was spent." in capsys.readouterr().err
