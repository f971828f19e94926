"""The sockets hold: what a kind of work is called, and what it is made of, is known in its own files alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from fallow.kinds.registry import KINDS

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fallow"

NAMES_ALLOWED = {
    "kinds/kind.py": "pip calls what tensors come with by a name that is a kind's, too",
    "wire/local.py": "two forms of jobs are of one kind each and say of which; the tag of a form",
    "rules/steward/shapes/rounds.py": "what people call its jobs",
    "gateway/requests.py": "OpenAI has a field that is called echo",
    "cli/main.py": "commands are called after what they do",
    "cli/demo.py": "a report's key; the demo shows training",
    "cli/demo_report.py": "a report's key; the demo shows training",
}
IMPORTS_ALLOWED = {
    "gateway": "an HTTP face of language models speaks their messages",
    "cli/chat.py": "a conversation with a language model",
    "cli/demo_report.py": "the demo shows training",
    "sdk/recipes.py": "how a model is trained when nobody says",
    "rules/replay.py": "to be moved: what is done again of a receipt",
}
NAMES_LATER = {
    "rules/replay.py": "to be moved: what is done again of a receipt",
    "node/replay.py": "to be moved: what is done again of a receipt",
}
"""What is still to go."""


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
    assert not [one for one in found if one.split(":")[0] not in NAMES_ALLOWED | NAMES_LATER], found
    used = {one.split(":")[0] for one in found}
    assert used == set(NAMES_ALLOWED | NAMES_LATER), "an exception that nobody needs any more"


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
