"""The style guide, as far as a machine can hold us to it. Each rule names the file and the line that breaks it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallow.errors import CODES

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TESTS = ROOT / "src" / "fallow", ROOT / "tests"

MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 600, 70, 8
JUNK_DRAWERS = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "stuff"}
DECLARATIONS = {"documents", "tasks", "messages", "ledger", "local", "worker"}
"""Modules of `wire/` that only declare; `tests/wire/test_declarations.py` covers them together."""
TESTED_ELSEWHERE = {
    "ports.py": "tests/contracts/",
    "cli/demo.py": "make demo",
    "sim/runner.py": "tests/contracts/test_runner.py",
}
TEST_ROOMS_OF_THEIR_OWN = ("contracts", "docs", "e2e", "integration", "crash", "benchmarks", "attacks")
"""Test folders that mirror no source folder."""
OF_THE_WHOLE = (
    "test_tidy.py", "test_sockets.py", "test_layers.py", "test_fallow.py", "test_dependencies.py",
    "wire/test_declarations.py",
)  # fmt: skip
UNDOCUMENTED_ROOMS = ("wire", "ports.py")
"""Where a reply need not repeat what its request says."""
SAME_THING = {
    "ClockTicked": "time passes for the steward's machine and for the provider's",
    "LedgerOpened": "the bank says the same to both sides of a lease",
    "LedgerClosed": "the bank says the same to both sides of a lease",
    "Job": "the client's handle of it is called what it stands for",
}
"""Names that two modules may give to classes of their own, since they mean one thing, and why there are two."""
EXEMPT: dict[str, str] = {}
"""`path` or `path:function` -> date and reason. Keep it short."""

# Split, so that this file passes its own test.
BANNED = ("/wo" + "rk/", "bash_" + "jobs", "TO" + "DO", "FIX" + "ME", "XX" + "X:", "before-" + "stop")

MODULES = sorted(SOURCE.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PAGES = sorted(
    page
    for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks")
    for page in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def trees(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    for path in paths:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_modules_are_short() -> None:
    long = {
        name_of(path): lines
        for path in MODULES + TEST_FILES + BENCHMARKS
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_MODULE_LINES
        and name_of(path) not in EXEMPT
    }
    assert not long


def test_functions_are_short_and_take_few_parameters() -> None:
    found: list[str] = []
    for path, tree in trees(MODULES + TEST_FILES + BENCHMARKS):
        for function in functions(tree):
            place = f"{name_of(path)}:{function.lineno} {function.name}"
            if f"{name_of(path)}:{function.name}" in EXEMPT:
                continue
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{place}: {lines} lines")
            arguments = function.args
            names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > MAX_PARAMETERS and TESTS not in path.parents:
                found.append(f"{place}: {count} parameters")
    assert not found, "\n".join(found)


def test_names_say_what_is_inside() -> None:
    folders = {path.parent for path in MODULES}
    drawers = [name_of(p) for p in MODULES if p.stem in JUNK_DRAWERS] + [
        name_of(f) for f in folders if f.name in JUNK_DRAWERS
    ]
    assert not drawers


def named_types(tree: ast.Module) -> Iterator[str]:
    """The public classes of a module, and its aliases of types, which are assigned in the same spelling."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id


def test_one_name_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path, tree in trees(MODULES):
        for name in named_types(tree):
            if name[0].isupper() and not name.isupper() and "_" not in name:
                places.setdefault(name, []).append(name_of(path))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not {name: found for name, found in twice.items() if name not in SAME_THING}
    assert set(SAME_THING) <= set(twice), "an exception that nothing needs"


def has_code(path: Path) -> bool:
    """Whether a module does anything: a function, or a class with a method that is more than a stub."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(not all(isinstance(step, ast.Expr) for step in function.body) for function in functions(tree))


def names_of(stem: str) -> list[str]:
    """The tests that may cover a module: `test_steward_pay.py`, or `test_steward.py` for all parts of it."""
    words = stem.lstrip("_").split("_")
    return [f"test_{'_'.join(words[:count])}.py" for count in range(len(words), 0, -1)]


def test_every_source_file_has_its_test_file() -> None:
    missing: list[str] = []
    for path in MODULES:
        inner = path.relative_to(SOURCE)
        if not has_code(path) or inner.as_posix() in TESTED_ELSEWHERE:
            continue
        if inner.parent.name == "wire" and path.stem in DECLARATIONS:
            continue
        stem = (inner.parent.name or "fallow") if path.stem == "__init__" else path.stem
        if not any((TESTS / inner.parent / name).exists() for name in names_of(stem)):
            missing.append(f"{name_of(path)} wants {name_of(TESTS / inner.parent)}/{names_of(stem)[0]}")
    assert not missing, "\n".join(missing)


def test_every_test_file_has_its_source_file() -> None:
    """`test_b.py`, or `test_b_<aspect>.py` where one file grew too long, beside `b.py`."""
    strays: list[str] = []
    for path in TEST_FILES:
        inner = path.relative_to(TESTS)
        if not path.name.startswith("test_") or inner.parts[0] in TEST_ROOMS_OF_THEIR_OWN:
            continue
        if inner.as_posix() in OF_THE_WHOLE:
            continue
        words = path.stem.removeprefix("test_").split("_")
        names = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
        sources = {p.stem.lstrip("_") for p in (SOURCE / inner.parent).glob("*.py")} | {inner.parent.name}
        if not names & sources:
            strays.append(name_of(path))
    assert not strays


def test_public_things_have_docstrings() -> None:
    bare: list[str] = []
    for path, tree in trees(MODULES):
        inner = path.relative_to(SOURCE)
        if (tree.body and ast.get_docstring(tree) is None) or inner.parts[0] in UNDOCUMENTED_ROOMS:
            if ast.get_docstring(tree) is None:
                bare.append(name_of(path))
            continue
        bare.extend(
            f"{name_of(path)}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        )
    assert not bare, "\n".join(bare)


def test_nothing_banned_is_written_anywhere() -> None:
    others = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run", ROOT / ".gitignore"]
    found = [
        f"{name_of(path)}:{number}: {word}"
        for path in MODULES + TEST_FILES + BENCHMARKS + PAGES + others
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in BANNED
        if word in line
    ]
    assert not found, "\n".join(found)


def test_money_is_never_a_float() -> None:
    floats = re.compile(r"\b\w*_ucr: (?:float|Decimal)\b|\bfloat\([^)]*_ucr\)")
    found = [name_of(path) for path in MODULES if floats.search(path.read_text(encoding="utf-8"))]
    assert not found


def test_tests_do_not_step_aside() -> None:
    """A test that may be skipped is a test that nobody runs."""
    aside = re.compile(r"@pytest\.mark\.(skip|xfail)\b|pytest\.(skip|xfail)\(" + "|importor" + "skip")
    found = [name_of(p) for p in TEST_FILES if p != Path(__file__).resolve() and aside.search(p.read_text("utf-8"))]
    assert not found


def test_error_codes_have_their_pages_and_the_pages_their_codes() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference/errors").glob("E*.md")}
    assert sorted(pages) == sorted(CODES), "run: python -m fallow.cli.explain docs/reference/errors"
    for code, entry in CODES.items():
        assert pages[code].startswith(f"# {code}: {entry.title}\n"), code
        assert entry.cause in pages[code], code
        assert entry.next_step in pages[code], code


def test_every_benchmark_has_its_row() -> None:
    readme = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    missing = [path.name for path in BENCHMARKS if not path.name.startswith("_") and f"`{path.name}`" not in readme]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def test_exemptions_are_still_needed() -> None:
    for place in EXEMPT:
        path, _, function = place.partition(":")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text, place
