"""The reference page of the commands, written from the parsers themselves: `python -m fallow.cli.reference FILE`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from fallow.cli.main import GROUPS
from fallow.cli.options import parser_of

HEAD = """# Commands

Every command takes `--json` (data on stdout, one JSON value a line, keys that stay), `--home DIR` (else `FALLOW_HOME`,
else `~/.fallow`) and `--help`. Data goes to stdout, talk to stderr; off a terminal there are no colours or bars.
Commands that spend show the price and ask; `--yes` answers, and is required where nobody can be asked.

Exit codes: 0 done, 2 wrong usage, 3 refused by the rules, 4 a peer misbehaved, 5 try again later, 6 not proven,
70 our bug, 130 interrupted. With `--json` an error is `{"error": {...}}` with `code`, `what`, `cause`, `money`, `next`,
`docs_page` and `retryable`.
"""
EVERYWHERE = {"help", "home", "json"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, commands in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [section(name, line) for name, line in commands.items()]
    return "\n".join(parts)


def section(name: str, line: str) -> str:
    """One command: what it says of itself, and a table of its own options."""
    module = importlib.import_module(f"fallow.cli.{name}")
    parser = parser_of(name, line, "")
    module.options(parser)
    rows = [row(action) for action in parser._actions if action.dest not in EVERYWHERE]  # pyright: ignore[reportPrivateUsage]
    table = ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    text = (module.__doc__ or line).strip()
    return "\n".join((f"### fallow {name}", "", "```text", text, "```", "", *table))


def row(action: argparse.Action) -> str:
    """One option as a row."""
    choices = "\\|".join(str(choice) for choice in action.choices) if action.choices else ""
    shown = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
    names = ", ".join(action.option_strings)
    value = "" if names and action.nargs == 0 else shown
    usage = f"{names} {value}".strip().replace("|", "\\|").replace("\\\\|", "\\|")
    meaning = (action.help or "").replace("|", "\\|")
    if choices and shown != choices:
        meaning = f"{meaning} ({choices})".strip()
    required = " *(required)*" if action.required and names else ""
    return f"| `{usage}` | {meaning}{required} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
