"""What an error code means, and what to do about it. Works offline.

fallow explain E1201
fallow explain --list
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fallow.cli.output import Output, table
from fallow.errors import CODES, ErrorCode, fail, page_of


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow explain CODE` or `fallow explain --list`."""
    parser.add_argument("code", nargs="?", metavar="CODE", help="as E1201")
    parser.add_argument("--list", action="store_true", help="all codes")


def run(args: argparse.Namespace, out: Output) -> int:
    """Explain one code, or list them."""
    if args.list or args.code is None:
        rows = [(code, entry.title, entry.next_step) for code, entry in sorted(CODES.items())]
        out.data({"codes": [entry_data(CODES[code]) for code, _, _ in rows]}, table(("CODE", "MEANS", "NEXT"), rows))
        return 0
    entry = CODES.get(args.code.upper())
    if entry is None:
        raise fail("E2005", f"No error has the code {args.code!r}.")
    out.data(entry_data(entry), page(entry).rstrip())
    return 0


def entry_data(entry: ErrorCode) -> dict[str, str | bool]:
    """A code for programs."""
    return {
        "code": entry.code,
        "title": entry.title,
        "family": entry.family.__name__,
        "retryable": entry.family.retryable,
        "cause": entry.cause,
        "next": entry.next_step,
        "docs_page": page_of(entry.code),
    }


def page(entry: ErrorCode) -> str:
    """The reference page of a code."""
    name = entry.family.__name__
    return (
        f"# {entry.code}: {entry.title}\n\n"
        f"**Likely cause.** {entry.cause}\n\n"
        f"**What to do.** {entry.next_step}\n\n"
        f"**Family.** `{name}`. {entry.family.__doc__}\n\n"
        "The error itself says what happened in your case and where your money is.\n"
    )


def write_pages(folder: Path) -> None:
    """Write the page of every code into `folder` and remove those of codes that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("E*.md"):
        if stale.stem not in CODES:
            stale.unlink()
    for code, entry in CODES.items():
        (folder / f"{code}.md").write_text(page(entry), encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
