from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal

from fallow import errors
from fallow.cli import jobs, main
from fallow.cli.main import COMMANDS, exit_code
from fallow.errors import CODES, fail

HEAVY = {"torch", "transformers", "rich", "fastapi", "starlette", "uvicorn", "iroh", "sqlalchemy", "numpy", "httpx"}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys; print(chr(10).join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("code", ["import fallow", "import fallow; fallow.connect, fallow.Job, fallow.errors"])
def test_importing_fallow_stays_light(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_help_loads_next_to_nothing() -> None:
    modules = loaded_by("from fallow.cli.main import main; main(['--help'])")
    assert not modules & (HEAVY | {"asyncio", "argparse", "msgspec", "typing", "json"})


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo"}))
def test_help_of_a_command_is_light_and_says_what_it_does(name: str, terminal: Terminal) -> None:
    said = terminal.fallow(name, "--help")
    assert said.code == 0
    assert said.out.startswith(f"usage: fallow {name}")
    assert "--json" in said.out
    assert not loaded_by(f"from fallow.cli.main import main; main(['{name}', '--help'])") & HEAVY


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_module(name: str) -> None:
    module = importlib.import_module(f"fallow.cli.{name}")
    assert callable(module.run)
    assert callable(module.options)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == "fallow 0.1.0\n"


def test_nothing_at_all_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    assert capsys.readouterr().out == ""


def test_a_mistyped_command_is_guessed(terminal: Terminal) -> None:
    said = terminal.fallow("jbos")
    assert (said.code, said.error_code) == (2, "E2001")
    assert "fallow jobs" in said.err


@pytest.mark.parametrize("words", [["jobs", "--wrong"], ["logs"], ["train", "--workers", "0"], ["run", "dance"]])
def test_wrong_usage_is_five_lines(words: list[str], terminal: Terminal) -> None:
    said = terminal.fallow(*words)
    assert (said.code, said.out, said.error_code) == (2, "", "E2001")


def test_global_options_may_come_first(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--home", str(terminal.home), "--json", "wallet"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_an_error_in_json_is_an_object_on_stdout(terminal: Terminal) -> None:
    said = terminal.fallow("jobs", "nothing", "--json")
    assert said.code == 2
    assert said.data["error"]["code"] == "E2002"
    assert said.err == ""


def test_a_bug_is_reported_without_a_traceback(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ExceptionGroup("wrapped", [ZeroDivisionError("oops")])

    monkeypatch.setattr(jobs, "run", broken)
    said = terminal.fallow("jobs")
    assert (said.code, said.error_code) == (70, "E9001")
    assert "ZeroDivisionError: oops" in said.err
    monkeypatch.setenv("FALLOW_TRACE", "1")
    assert "Traceback" in terminal.fallow("jobs").err


def test_an_error_inside_a_task_group_comes_out_as_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise ExceptionGroup("wrapped", [fail("E1804", "Port 1 is taken.")])

    monkeypatch.setattr(jobs, "run", refused)
    assert terminal.fallow("jobs").error_code == "E1804"


def test_an_interrupt_says_what_still_runs(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run", interrupted)
    said = terminal.fallow("jobs")
    assert said.code == 130
    assert "Nothing was left running" in said.err


def test_every_family_has_an_exit_code_of_its_own() -> None:
    families = {entry.family: exit_code(fail(code, "")) for code, entry in CODES.items()}
    assert len(set(families.values())) == len(families) == 6
    assert all(families.values())
    assert exit_code(errors.UnavailableError("E1801", "")) == 5


def test_a_reader_that_goes_away_is_no_error(terminal: Terminal) -> None:
    command = f"{sys.executable} -m fallow.cli.main explain --list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.startswith("CODE")
    assert done.stderr == ""
