"""The sockets hold: what a kind of work is called, and what it is made of, is known in its own files alone."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import msgspec
import pytest

from fallow.cli.options import parser_of
from fallow.errors import FallowError
from fallow.kinds.registry import KINDS, kind_named
from fallow.node.config import ProviderConfig
from fallow.rules.steward.checks.registry import CHECKS, PolicyError, parse
from fallow.rules.steward.shapes.registry import SHAPES, shape_named
from fallow.rules.steward.state import ShapeState
from fallow.wire.local import Work

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fallow"

NAMES_ALLOWED = {
    "kinds/kind.py": "pip calls what tensors come with by a name that is a kind's, too",
    "wire/local.py": "two forms of jobs are of one kind each and say of which; the tag of a form",
    "rules/steward/shapes/rounds.py": "what people call its jobs",
    "interop/bacalhau/job.py": "an engine of Bacalhau's",
    "cli/main.py": "commands are called after what they do",
    "cli/demo.py": "a report's key; the demo shows training",
    "cli/demo_report.py": "a report's key; the demo shows training",
}
IMPORTS_ALLOWED = {
    "gateway": "an HTTP face of language models speaks their messages",
    "cli/chat.py": "a conversation with a language model",
    "cli/demo_report.py": "the demo shows training",
    "sdk/recipes.py": "how a model is trained when nobody says",
}


def own(path: str, kind: str) -> bool:
    """Whether a file is a kind's own, one of the programs, or of the simulator, which makes their outputs up."""
    rooms = (f"kinds/{kind}/", "workloads/", "sim/")
    return path in (f"kinds/{kind}.py", "kinds/registry.py") or path.startswith(rooms)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))


def test_no_kind_is_named_elsewhere() -> None:
    found: list[str] = []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in KINDS and not own(path, str(node.value)):
                found.append(f"{path}:{node.lineno} {node.value!r}")
    assert not [one for one in found if one.split(":")[0] not in NAMES_ALLOWED], found
    used = {one.split(":")[0] for one in found}
    assert used == set(NAMES_ALLOWED), "an exception that nobody needs any more"


def test_no_kind_is_imported_elsewhere() -> None:
    found: set[str] = set()
    for path, tree in modules():
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                kind = name.removeprefix("fallow.kinds.").split(".")[0] if name.startswith("fallow.kinds.") else ""
                if kind in KINDS and not own(path, kind):
                    found.add(path)
    strays = [path for path in found if path not in IMPORTS_ALLOWED and path.split("/")[0] not in IMPORTS_ALLOWED]
    assert not strays
    for allowed in IMPORTS_ALLOWED:
        assert any(path == allowed or path.startswith(f"{allowed}/") for path in found), f"nobody needs {allowed}"


WORDS_ALLOWED = {
    "wire/local.py": "the tags of forms, and what is checked how when nobody says",
    "wire/receipts.py": "a receipt is about an answer on a lane",
    "interop/model.py": "a type of Bacalhau's jobs",
    "interop/bacalhau/job.py": "words of Bacalhau's jobs",
    "cli/main.py": "commands are called after what they do",
    "cli/render.py": "a job's rounds",
    "cli/demo.py": "a report's key",
    "cli/demo_report.py": "a report's key",
    "gateway/doors/anthropic.py": "its clients choose no tool with this word",
    "gateway/doors/chat.py": "its clients choose no tool with this word",
    "gateway/doors/responses.py": "its clients choose no tool with this word",
    "kinds/train/tasks.py": "the tag of a task that checks links",
    "node/rpc.py": "a function is called so",
    "numerics/exact/bindings.py": "an argument of a C function",
    "workloads/lora.py": "a word of PEFT's",
    "workloads/train.py": "a setting of a recipe",
}
"""Files with a string that is also the name of a form, of what one remembers, or of a check."""
TYPES_ALLOWED = ("rules/steward/shapes/", "wire/local.py", "kinds/", "sdk/client.py", "sim/")
"""A form's own files and its message; a kind says what it makes of the forms that it knows; a client hands them in."""


def names_of_forms_and_checks() -> set[str]:
    own = [form for form in (*SHAPES, *ShapeState.__subclasses__()) if form.__module__.startswith("fallow.")]
    tags = {cast("type[msgspec.Struct]", form).__struct_config__.tag for form in own}
    return ({shape.name for shape in SHAPES.values()} | {str(tag) for tag in tags} | set(CHECKS)) - set(KINDS)


def test_no_form_or_check_is_named_elsewhere() -> None:
    names = names_of_forms_and_checks()
    found: list[str] = []
    for path, tree in modules():
        if path.startswith(("rules/steward/shapes/", "rules/steward/checks/", "sim/")):
            continue
        found += [
            f"{path}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in names
        ]
    assert {one.split(":")[0] for one in found} == set(WORDS_ALLOWED), found


def test_no_form_or_check_is_known_by_its_type_elsewhere() -> None:
    own = {form.__name__ for form in SHAPES} | {type(one).__name__ for one in (*SHAPES.values(), *CHECKS.values())}
    found: set[str] = set()
    for path, tree in modules():
        for node in ast.walk(tree):
            named = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if (
                isinstance(node, ast.expr)
                and named in own
                and not path.startswith((*TYPES_ALLOWED, "rules/steward/checks/"))
            ):
                found.add(f"{path}:{node.lineno} {named}")
    assert not found


def test_forms_and_checks_are_reached_through_their_registries() -> None:
    for path, tree in modules():
        if path.startswith(("rules/steward/shapes/", "rules/steward/checks/", "sim/")):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for folder in ("fallow.rules.steward.shapes", "fallow.rules.steward.checks"):
                assert node.module != folder, path
                assert not node.module.startswith(f"{folder}.") or node.module == f"{folder}.registry", path


def help_of(command: str) -> str:
    parser = parser_of(command, "", "")
    importlib.import_module(f"fallow.cli.{command}").options(parser)
    return " ".join(parser.format_help().split())


def cause_of(look: Callable[[], object]) -> str:
    with pytest.raises(FallowError) as refused:
        look()
    return refused.value.cause


def test_no_member_is_missing_where_all_are_gone_through() -> None:
    page = (SOURCE.parent.parent / "docs/explanation/architecture.md").read_text("utf-8")
    rows = {row.split("**")[1]: row.split("|")[3] for row in page.splitlines() if row.startswith("| **")}
    run, offers, known = help_of("run"), help_of("offers"), cause_of(lambda: kind_named("nobodys"))
    for kind in KINDS.values():
        assert f" {kind.name}" in run, "what can be run"
        assert f" {kind.name}" in offers, "what is sold"
        assert kind.name in ProviderConfig().prices, "what a provider sells when its owner says nothing"
        assert kind.name in rows["Kind"], "the map"
        assert kind.name in known, "what a refusal says there is"
        assert find_spec(kind.program.partition(":")[0]) is not None, "what a worker runs"
    known = cause_of(lambda: shape_named("nobodys"))
    for form, shape in SHAPES.items():
        assert shape_named(shape.name) is shape, "what people call it"
        assert form in Work.__subclasses__(), "what can be read from a log"
        assert type(shape).__module__.rpartition(".")[2] in rows["Shape"], "the map"
        assert shape.name in known, "what a refusal says there is"
    refused = parse("nobodys")
    assert isinstance(refused, PolicyError)
    for name, check in CHECKS.items():
        assert name == check.name, "what a job says"
        assert f" {name}" in run, "how people may have it verified"
        assert name in rows["Check"], "the map"
        assert name in refused.what, "what a refusal says there is"
        assert check.proves, "what a receipt says"
        assert check.leaves_open, "what a receipt says"
