"""Templates that mean harm."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.workloads.tiny import make_model

from fallow.workloads import chat_template
from fallow.workloads.chat_template import TemplateError, render
from fallow.workloads.hf_folder import read_tokenizer

TURNS = [{"role": "user", "content": "hi"}]
LOOPS = {
    "nested": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursive": "{% macro f(n) %}{% for i in range(99999) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(1) }}",
    "filters": "{% for a in range(99999) %}{% set x = (range(9999) | list | sort | join) %}{% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read_tokenizer(make_model(tmp_path_factory.mktemp("made") / "model"))


def test_an_honest_template_writes_what_it_writes(tokenizer: Any) -> None:
    assert render(tokenizer, TURNS, answer_next=True) == "<|user|>hi<end><|assistant|>"
    assert render(tokenizer, TURNS, answer_next=False) == "<|user|>hi<end>"


@pytest.mark.parametrize("name", LOOPS)
def test_one_that_never_ends_is_ended(tokenizer: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "LIMIT_S", 0.3)
    monkeypatch.setattr(tokenizer, "chat_template", LOOPS[name])
    before = threading.active_count()
    with pytest.raises(TemplateError):
        render(tokenizer, TURNS, answer_next=True)
    assert threading.active_count() <= before + 1
    monkeypatch.setattr(tokenizer, "chat_template", "fine")
    assert render(tokenizer, TURNS, answer_next=True) == "fine"


def test_one_that_writes_without_end_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ 'x' * 3000000 }}")
    with pytest.raises(TemplateError, match="3,000,000 characters"):
        render(tokenizer, TURNS, answer_next=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os.environ }}", "{% import 'os' as os %}", "{{ 1 / 0 }}",
    ],
)  # fmt: skip
def test_one_that_reaches_out_gets_nothing(tokenizer: Any, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(TemplateError):
        render(tokenizer, TURNS, answer_next=True)


def test_what_a_long_chat_needs_is_not_too_much(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_CHARS", 100)
    turns = [{"role": "user", "content": "x" * 10_000}]
    assert len(render(tokenizer, turns, answer_next=True)) > 10_000


def test_an_interruption_that_falls_where_objects_are_cleared_away_is_followed_by_another() -> None:
    """The interpreter swallows what is raised there (here: in `__del__`) and would print it as a mistake of ours."""
    cleared = []

    class Slow:
        def __del__(self) -> None:
            cleared.append(True)
            while True:
                pass

    def clear_and_go_on() -> None:
        Slow()
        while True:
            pass

    with pytest.raises(chat_template._Late):
        chat_template._limited(clear_and_go_on, 0.05)
    assert cleared


@pytest.mark.parametrize("word", ["late"])
def test_an_interruption_hits_nobody_else(word: str) -> None:
    """It comes in the thread that it is meant for, and never after the work was done."""
    done = []
    for _ in range(300):
        try:
            done.append(chat_template._limited(lambda: sum(range(20_000)), 0.0003))
        except chat_template._Late:
            done.append(word)
    assert len(done) == 300
    assert sum(range(1_000_000)) == 499_999_500_000
