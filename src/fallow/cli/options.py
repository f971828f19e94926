"""Options that several commands share, and a parser whose complaints are errors like all others."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import NoReturn

from fallow.errors import fail
from fallow.rules.steward.checks.registry import CHECKS, PolicyError, parse
from fallow.sdk.terms import money

SHARED = "for every command"
WIDEST = 100


class Help(argparse.HelpFormatter):
    """Help as wide as the terminal, up to WIDEST. Paragraphs are filled; lines that are indented, or that show a
    command, stay as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, WIDEST))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts: list[str] = []
        for paragraph in text.split("\n\n"):
            shown = any(line.startswith((" ", "fallow ")) for line in paragraph.splitlines())
            parts.append(paragraph if shown else textwrap.fill(paragraph, width))
        return "\n\n".join(parts)


class Parser(argparse.ArgumentParser):
    """argparse, but wrong usage raises UsageError E2001 instead of printing and exiting by itself."""

    def format_help(self) -> str:
        """The help: what must be given in the first line, what every command takes at the end."""
        given = [action for action in self._actions if not action.option_strings or action.required]
        words = [f"{action.option_strings[0]} {action.metavar}" for action in given if action.option_strings]
        places = [self._place(action) for action in given if not action.option_strings]
        self.usage = " ".join([self.prog, *places, *words, "[OPTIONS]"])
        self._action_groups.sort(key=lambda group: group.title == SHARED)
        return super().format_help()

    @staticmethod
    def _place(action: argparse.Action) -> str:
        name = str(action.metavar or "|".join(str(choice) for choice in action.choices or ()) or action.dest)
        more = f"{name} ..." if action.nargs in ("*", "+") else name
        return f"[{more}]" if action.nargs in ("?", "*") else more

    def error(self, message: str) -> NoReturn:
        """Raise UsageError E2001."""
        raise fail("E2001", f"{self.prog}: {message}.", next_step=f"{self.prog} --help")


def parser_of(name: str, line: str, text: str) -> Parser:
    """The parser of subcommand `name` with what every command takes."""
    description = text.strip() or line
    parser = Parser(
        prog=f"fallow {name}",
        description=description,
        formatter_class=Help,
        allow_abbrev=False,
    )
    shared = parser.add_argument_group(SHARED)
    shared.add_argument("--home", metavar="DIR", help="the node's home (default: FALLOW_HOME or ~/.fallow)")
    shared.add_argument("--json", action="store_true", help="print data as JSON on stdout")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def seconds(text: str) -> int:
    """A duration: `90`, `90s`, `15m`, `2h` or `1d`, in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    digits = text[:-1] if unit else text
    if not digits.isascii() or not digits.isdigit() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration (write 90s, 15m or 2h)")
    return int(digits) * (unit or 1)


def policy(text: str) -> str:
    """A way to verify, as the check reads it that is named."""
    found = parse(text)
    if isinstance(found, PolicyError):
        raise argparse.ArgumentTypeError(found.what)
    return text


def existing_path(text: str) -> Path:
    """A path that is there, absolute but with its links, since a model is called by the name that was typed. Raises
    UsageError E2003 otherwise."""
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise fail("E2003", f"{text} does not exist.", cause=f"There is nothing at {path}.")
    return path


def add_yes(parser: argparse.ArgumentParser) -> None:
    """`--yes`, for commands that spend."""
    parser.add_argument("-y", "--yes", action="store_true", help="go on without asking")


def add_log(parser: argparse.ArgumentParser) -> None:
    """`--log`, for nodes."""
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log", choices=levels, default="warning", help="what to log (default warning)")


def add_job_terms(parser: argparse.ArgumentParser) -> None:
    """What every job has: what it may cost, how long it may take, who should do it and how it is checked."""
    terms = parser.add_argument_group("terms")
    terms.add_argument(
        "--budget", metavar="CR", type=money, required=True, help="the most it may ever cost, in credits"
    )
    terms.add_argument(
        "--max-price", metavar="CR", type=money, help="per 1,000 units; default: the dearest that fits now"
    )
    terms.add_argument("--timeout", metavar="TIME", type=seconds, default=24 * 3600, help="give up after (default 24h)")
    terms.add_argument("--prefer", choices=("price", "speed"), default="price", help="which offers to take first")
    terms.add_argument(
        "--verify",
        metavar="HOW",
        type=policy,
        help=f'{" or ".join(CHECKS)}, or "audit:rate=0.1,quorum=2" (default audit; none for answers of a GGUF model)',
    )
    terms.add_argument("--name", default="", help="a name of your own for the job")
    terms.add_argument("--detach", action="store_true", help="do not wait for the end")
    add_yes(parser)
