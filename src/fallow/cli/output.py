"""How commands speak: data on stdout, talk on stderr, JSON when asked, colours and bars only on a terminal. Names,
texts and answers come from strangers: whatever is said here has been made `plain`, and JSON escapes such letters."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from fallow.errors import FallowError, fail
from fallow.units import plain


class Bar:
    """A progress display; `update` may be called as often as one likes. This one shows nothing."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """How far it all is."""

    def part(self, name: str, done: int, total: int, text: str) -> None:
        """What one worker is at just now, on a line of its own below the bar."""

    def say(self, text: str) -> None:
        """A line of talk that stays, above the bar."""


class Output:
    """One command's mouth. With `as_json` every `data` is one line of JSON with stable keys, and an error is
    `{"error": {...}}` there too, so that a program reads one stream."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.when_interrupted = "Interrupted. Nothing was left running by this command."

    def data(self, value: Any, text: str) -> None:
        """The answer: `value` for programs, `text` for people."""
        print(_json(value) if self.as_json else plain(text), flush=True)

    def say(self, text: str) -> None:
        """Talk; never data."""
        print(plain(text), file=sys.stderr, flush=True)

    def piece(self, text: str) -> None:
        """A part of a streamed answer for people; nothing in JSON, where the whole comes at the end."""
        if not self.as_json:
            print(plain(text), end="", flush=True)

    def error(self, error: FallowError) -> None:
        """The five lines, or the same as JSON."""
        if self.as_json:
            print(_json({"error": error.details()}), flush=True)
        else:
            self.say(error.five_lines())

    def trace(self, error: BaseException) -> None:
        """The traceback of a bug, for those who ask: FALLOW_TRACE=1."""
        if os.environ.get("FALLOW_TRACE"):
            import traceback

            traceback.print_exception(error, file=sys.stderr)

    @property
    def on_terminal(self) -> bool:
        """Whether a person is reading the talk."""
        return sys.stderr.isatty() and not self.as_json

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before money moves. Without a person to ask, going on needs `--yes`: silence is not consent. Raises
        UsageError E2006 when the answer is no, or when nobody can be asked."""
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise fail("E2006", f"{question} Nobody can be asked here.", cause="This is no terminal.")
        print(plain(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise fail("E2006", "You did not confirm.")

    @contextmanager
    def progress(self, title: str) -> Generator[Bar]:
        """A bar on a terminal, a line per step elsewhere, nothing in JSON."""
        if self.as_json:
            yield Bar()
        elif self.on_terminal:
            with _rich_bar(title) as bar:
                yield bar
        else:
            yield _Lines(title)


def _json(value: Any) -> str:
    """One line, in which whatever steers a terminal is escaped: outside of strings JSON has no such letters."""
    line = json.dumps(value, ensure_ascii=False)
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


class _Lines(Bar):
    """Says each whole step once."""

    def __init__(self, title: str) -> None:
        self._title, self._last = title, ("", -1)
        self._parts: dict[str, str] = {}

    def update(self, done: int, total: int, note: str = "") -> None:
        if (note, done) == self._last:
            return
        self._last = (note, done)
        count = f" {done}/{total}" if total else ""
        self.say(f"{self._title}{count}{'  ' + note if note else ''}")

    def part(self, name: str, done: int, total: int, text: str) -> None:
        """Lines cannot be replaced, so only a finished part is worth one."""
        if total and done == total and self._parts.get(name) != text:
            self._parts[name] = text
            self.say(f"  {name} {done}/{total}  {text}")

    def say(self, text: str) -> None:
        print(plain(text), file=sys.stderr, flush=True)


@contextmanager
def _rich_bar(title: str) -> Generator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    notes = TextColumn("{task.fields[note]}", markup=False)  # a provider's text must not be read as markup
    with Progress(*columns, notes, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=None, note="")
        parts: dict[str, TaskID] = {}

        class _Rich(Bar):
            def update(self, done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total or None, note=plain(note))

            def part(self, name: str, done: int, total: int, text: str) -> None:
                if name not in parts:
                    parts[name] = bars.add_task(plain(f"  {name}"), total=None, note="")
                bars.update(parts[name], completed=done, total=total or None, note=plain(text))

            def say(self, text: str) -> None:
                bars.print(plain(text), markup=False, highlight=False)

        yield _Rich()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, two spaces apart; a column whose cells all start with a digit is set to the right."""
    cells = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    right = [bool(rows) and all(row[column][:1].isdigit() for row in rows) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )
