"""`fallow run` for programs of one's own: ten mistakes that people make get the true reason, and cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.kinds.wasm.test_kind import output
from tests.wasm_programs import CAT, wasm, wat

from fallow.kinds.wasm.kind import read_task
from fallow.wire.local import SubmitJob

TERMS = ("--budget", "1", "--yes")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "prog.wasm"
    path.write_bytes(wasm(CAT))
    return path


def inputs(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return [folder / name for name in names]


def test_each_input_is_a_run(terminal: Terminal, program: Path, tmp_path: Path) -> None:
    files = inputs(tmp_path, "a.csv", "b.csv")
    terminal.node.outputs, terminal.node.tree = (output(name="a.csv"), output(name="b.csv")), b""
    said = terminal.fallow("run", "wasm", program, "--input", *files, *TERMS, "--out", tmp_path / "out", "--env", "A=b")
    assert said.code == 0, said.err
    assert said.out == f"== a.csv\nsaid\n== b.csv\nsaid\nSaved to {tmp_path / 'out'}\n"
    assert "asks the system for: fd_read, fd_write" in said.err
    assert (tmp_path / "out" / "b.csv" / "stdout").read_bytes() == b"said\n"
    (request,) = terminal.node.requests(SubmitJob)
    runs = [read_task(params) for params in request.spec.work.params]
    assert [(run.name, run.stdin, run.environment) for run in runs] == [
        (name, f"in/{name}", (("A", "b"),)) for name in ("a.csv", "b.csv")
    ]


def test_arguments_follow_two_dashes_and_braces_stand_for_the_input(
    terminal: Terminal, program: Path, tmp_path: Path
) -> None:
    (path,) = inputs(tmp_path, "a.csv")
    words = ("run", "wasm", program, "--input", path, *TERMS, "--detach")
    terminal.fallow(*words, "--", "--json", "{}", "-h")
    (request,) = terminal.node.requests(SubmitJob)
    (run,) = [read_task(params) for params in request.spec.work.params]
    assert (run.args, run.stdin) == (("--json", "/in/a.csv", "-h"), "")


def test_lines_of_arguments_are_runs(terminal: Terminal, program: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("1 'two words'\n2\n")
    terminal.fallow("run", "wasm", program, "--from", tmp_path / "lines", *TERMS, "--detach", "--fuel", "7", "--", "-v")
    (request,) = terminal.node.requests(SubmitJob)
    assert [read_task(one).args for one in request.spec.work.params] == [("-v", "1", "two words"), ("-v", "2")]
    assert request.spec.work.units_each == 7


def test_a_dry_run_shows_what_it_wants_and_buys_nothing(terminal: Terminal, program: Path) -> None:
    said = terminal.fallow("run", "wasm", program, "--budget", "1", "--dry-run")
    assert (said.code, terminal.node.requests(SubmitJob)) == (0, [])
    assert "fd_read, fd_write" in said.err
    assert "Nothing was spent." in said.out


def test_a_run_that_failed_is_an_error_after_its_output(terminal: Terminal, program: Path) -> None:
    terminal.node.outputs = (output(status=3, stderr=b"no such row\n"),)
    said = terminal.fallow("run", "wasm", program, *TERMS)
    assert (said.code, said.error_code) == (2, "E1724")
    assert "no such row" in said.out
    assert "1 of 1 runs failed, first part.csv: exit status 3" in said.err


MISTAKES: dict[str, tuple[str, ...]] = {
    "There is no program": ("run", "wasm", "--budget", "1"),
    "does not exist": ("run", "wasm", "nothing.wasm", "--budget", "1"),
    "no WebAssembly module": ("run", "wasm", "a.csv", "--budget", "1"),
    "one word too many": ("run", "wasm", "prog.wasm", "argument", "--budget", "1"),
    "no.csv does not exist": ("run", "wasm", "prog.wasm", "--input", "no.csv", "--budget", "1"),
    "is no NAME=VALUE": ("run", "wasm", "prog.wasm", "--env", "A", "--budget", "1"),
    "more than any provider gives": ("run", "wasm", "prog.wasm", "--memory", "99999", "--budget", "1"),
    "either for inputs": ("run", "wasm", "prog.wasm", "--input", "a.csv", "--from", "a.csv", "--budget", "1"),
    "begins with 2.0 MiB": ("run", "wasm", "large.wasm", "--memory", "1", "--budget", "1"),
    "not valid": ("run", "wasm", "invalid.wasm", "--budget", "1"),
    "called 'a.csv'": ("run", "wasm", "prog.wasm", "--input", "a.csv", "--file", "more/a.csv", "--budget", "1"),
    "echo takes no --input": ("run", "echo", "hello", "--input", "a.csv", "--budget", "1"),
    "echo takes no --fuel": ("run", "echo", "hello", "--fuel", "1", "--budget", "1"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_gets_its_true_reason_and_costs_nothing(
    what: str, terminal: Terminal, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs(tmp_path, "a.csv", "more/a.csv")
    (tmp_path / "large.wasm").write_bytes(wasm(wat("", pages=32)))
    (tmp_path / "invalid.wasm").write_bytes(wasm(wat("i32.add")))
    monkeypatch.chdir(tmp_path)
    said = terminal.fallow(*MISTAKES[what], "--yes")
    assert said.code == 2
    assert what in said.err
    assert "Nothing was spent." in said.err
    assert terminal.node.requests(SubmitJob) == []
