"""The import contracts can fail: each of these faults, put into an empty copy of the tree, breaks the contract that is
meant for it. That the tree itself keeps them is `make layers`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "fallow"
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every module of the tree, empty, under the real contracts."""
    folder = tmp_path_factory.mktemp("skeleton")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"))
    for path in SOURCE.rglob("*.py"):
        copy = folder / "src" / path.relative_to(ROOT / "src")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    return folder


def lint(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [LINT, "--no-cache", "--no-logo"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_the_empty_tree_keeps_every_contract(skeleton: Path) -> None:
    code, said = lint(skeleton)
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("rules/jobs.py", "import time", "what decides is pure"),
        ("wire/codec.py", "import fallow.node.config", "imports only point down"),
        ("rules/jobs.py", "import fallow.rules.trust", "rules do not know each other"),
        ("node/api.py", "import fallow.sim.loop", "imports only point down"),
        ("node/api.py", "import torch", "only workloads and numerics import tensors"),
        ("sdk/client.py", "import rich", "the sdk is light"),
        ("attic/__init__.py", "", "imports only point down"),
        ("rules/attic.py", "", "rules do not know each other"),
    ],
)
def test_a_fault_breaks_its_contract(skeleton: Path, module: str, line: str, broken: str) -> None:
    path = skeleton / "src" / "fallow" / module
    existed = path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    try:
        code, said = lint(skeleton)
    finally:
        if existed:
            path.write_text("")
        else:
            path.unlink()
            if path.name == "__init__.py":
                path.parent.rmdir()
    assert code == 1
    assert any(broken in row and row.endswith("BROKEN") for row in said.splitlines()), said
