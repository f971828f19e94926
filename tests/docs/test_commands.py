"""Every command and snippet in the documentation does what it says: each page is followed from its first line to its
last by `tests.docs.walk`, on a network of real processes that its own commands start."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import postgres
from tests.docs.pages import ROOT, SHELL, blocks
from tests.workloads.tiny import TEXT, make_model

from fallow.cli.main import COMMANDS
from fallow.cli.options import parser_of

FOLDERS = ("docs/tutorials", "docs/how-to", "docs/reference", "docs/explanation")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))),
]
RUNNABLE = (*SHELL, "python", "toml", "diff")
WALKED = [page for page in PAGES if any(block.language in RUNNABLE for block in blocks(page))]
MOST_NOT_RUN = 3
ALONE = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
"""A network of its own for each page, so that its ports are free, where the machine lets us."""


@pytest.fixture(scope="module")
def belongings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader brings along: a model and a text."""
    folder = tmp_path_factory.mktemp("belongings")
    make_model(folder / "model")
    (folder / "notes.txt").write_text(TEXT * 2, "utf-8")
    (folder / "prompts.txt").write_text("The old farmer\nThe young baker\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def alone() -> tuple[str, ...]:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return ()
    tried = subprocess.run([*ALONE, "true"], capture_output=True, check=False)
    return ALONE if tried.returncode == 0 else ()


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKED, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, belongings: Path, alone: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(belongings, tmp_path / "work")
    command = [*alone, sys.executable, "-m", "tests.docs.walk", str(page), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    if "postgresql" in page.stem:
        environment |= {"PGHOST": str(postgres.server()), "PGUSER": "postgres"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def test_nearly_every_block_is_run() -> None:
    left_out = {f"{page.name}:{block.line}": block.why_not for page in PAGES for block in blocks(page) if block.why_not}
    assert len(left_out) <= MOST_NOT_RUN, left_out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_a_commands_help_can_be_typed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They parse; paths in them need not be there."""
    module = importlib.import_module(f"fallow.cli.{name}")
    for line in (module.__doc__ or "").splitlines():
        if line.strip().startswith(f"fallow {name} "):
            parser = parser_of(name, "", "")
            module.options(parser)
            for action in parser._actions:
                if action.type is not None and getattr(action.type, "__name__", "") == "existing_path":
                    action.type = Path
            words = shlex.split(line.strip().split("  ")[0])[2:]
            assert isinstance(parser.parse_args(words), argparse.Namespace)
