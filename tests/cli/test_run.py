from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.cli.files import hf_model
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import TREE, output

from fallow.kinds.generate.tasks import Generate
from fallow.kinds.registry import KINDS
from fallow.wire.codec import decode
from fallow.wire.local import SubmitJob


def test_inputs_become_tasks_and_outputs_are_printed(terminal: Terminal) -> None:
    terminal.node.outputs = (output(b"hello"), output(b"world"))
    said = terminal.fallow("run", "echo", "hello", "world", "--budget", "1", "--yes")
    assert (said.code, said.out) == (0, "hello\nworld\n")
    (request,) = terminal.node.requests(SubmitJob)
    assert request.spec.work.params == (b"hello", b"world")


def test_inputs_from_a_file_and_from_standard_input(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_text("b\n\nc\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("d\n"))
    terminal.json("run", "echo", "a", "--from", tmp_path / "in.txt", "--budget", "1", "-y", "--detach")
    terminal.json("run", "echo", "--from", "-", "--budget", "1", "-y", "--detach")
    assert [r.spec.work.params for r in terminal.node.requests(SubmitJob)] == [(b"a", b"b", b"c"), (b"d",)]


def test_to_generate_takes_the_model_along(terminal: Terminal, tmp_path: Path) -> None:
    model = hf_model(tmp_path / "model")
    terminal.json("run", "generate", "Why?", "--model", model, "--budget", "1", "-y")
    (request,) = terminal.node.requests(SubmitJob)
    assert [(part.name, part.blob) for part in request.spec.work.inputs] == [("model", TREE)]
    assert decode(Generate, request.spec.work.params[0]).turns[0].content == "Why?"


def test_all_tasks_are_metered_as_the_largest_of_them(terminal: Terminal, tmp_path: Path) -> None:
    model = hf_model(tmp_path / "model")
    terminal.json("run", "spin", "7000000", "1", "--budget", "1", "-y", "--detach")
    terminal.json(
        "run", "generate", "a", "äöü", "--model", model, "--max-tokens", "10", "--budget", "1", "-y", "--detach"
    )
    assert [request.spec.work.units_each for request in terminal.node.requests(SubmitJob)] == [7, 6 + 64 + 10]


def test_an_unknown_kind_is_refused_by_name(terminal: Terminal) -> None:
    said = terminal.fallow("run", "render", "a", "--budget", "1", "--yes")
    assert said.error_code == "E2001"
    assert "'render'" in said.err
    assert all(name in said.err for name in KINDS)


def test_a_form_that_is_unknown_or_no_list_is_refused_by_name(terminal: Terminal) -> None:
    for form in ("pairs", "serve"):
        said = terminal.fallow("run", "echo", "a", "--form", form, "--budget", "1", "--yes")
        assert (said.code, form in said.err, "E2001" in said.err) == (2, True, True)
    assert not terminal.node.requests(SubmitJob)


def test_every_kind_and_what_it_takes_is_in_the_help(terminal: Terminal) -> None:
    said = terminal.fallow("run", "--help").out
    for kind in KINDS.values():
        assert kind.name in said
        assert all(f"--{one.name.replace('_', '-')}" in said for one in (*kind.inputs, *kind.settings))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["echo"], "E2001"),
        (["spin", "fast"], "E2001"),
        (["generate", "Why?"], "E2001"),
        (["echo", "a", "--model", "."], "E2001"),
        (["echo", "a", "--max-tokens", "3"], "E2001"),
        (["train", "a"], "E2001"),
        (["echo", "--from", "/no/such"], "E2003"),
        (["generate", "Why?", "--model", "."], "E1701"),
    ],
)
def test_what_cannot_be_run(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = terminal.fallow("run", *words, "--budget", "1", "--yes")
    assert (said.code, said.error_code) == (2, code)
    assert not terminal.node.asked


def test_inputs_that_are_no_text(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    assert terminal.fallow("run", "echo", "--from", tmp_path / "bad", "--budget", "1").error_code == "E1702"
