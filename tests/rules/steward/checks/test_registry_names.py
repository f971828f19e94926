"""The sockets hold: what a check is called, and what it is made of, is known in its own files alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from fallow.rules.steward.checks.registry import CHECKS

SOURCE = Path(__file__).resolve().parents[4] / "src" / "fallow"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))


CHECK_NAMES_ALLOWED = {
    "wire/local.py": "the ways that are taken when nobody says, named once",
    "kinds/train/tasks.py": "the tag of a message, on the wire since before there were checks",
    "workloads/lora.py": "PEFT's own word in its own file",
    "gateway/doors/anthropic.py": "Anthropic's own word for a tool choice",
    "gateway/doors/chat.py": "OpenAI's own word for a tool choice",
    "gateway/doors/responses.py": "the same",
    "interop/bacalhau/job.py": "Bacalhau's own word for a network that is not there",
}


def test_no_check_is_named_elsewhere() -> None:
    found: set[str] = set()
    for path, tree in modules():
        if path.startswith(("rules/steward/checks/", "sim/")):
            continue
        if any(isinstance(node, ast.Constant) and node.value in CHECKS for node in ast.walk(tree)):
            found.add(path)
    assert found == set(CHECK_NAMES_ALLOWED)


def test_no_file_of_a_check_is_imported_elsewhere() -> None:
    rooms = {"checks", *(path.stem for path in (SOURCE / "rules/steward/checks").glob("*.py"))} - {"registry"}
    for path, tree in modules():
        if path.startswith(("rules/steward/checks/", "sim/")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fallow.rules.steward.checks"):
                assert (node.module or "").rsplit(".", 1)[-1] not in rooms, f"{path} imports {node.module}"
