"""Reading documentation as something to be run: fenced blocks with their language, and what stands before them in HTML
comments.

`<!-- given: WHAT -->` says what a page presupposes; it is set up first. `<!-- on: NAME -->` moves to another
machine: a home folder of its own. `<!-- file: PATH -->` says which file of the source the next block is: all of it, or
where the block is a diff, some of its lines. `<!-- not run: WHY -->` leaves out the next block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\s*$")
COMMENT = re.compile(r"^<!-- (given|on|file|not run): (.+) -->$")
SHELL = ("", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block, or (with `language` "given" or "on") what a comment says. `why_not` is why it is not run, `file`
    which file it is."""

    language: str
    text: str
    line: int
    why_not: str = ""
    file: str = ""

    def commands(self) -> list[str]:
        """The commands of a shell block: one a line, without comments."""
        lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    found: list[Block] = []
    why_not, file, language, began, lines = "", "", None, 0, list[str]()
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence, comment = FENCE.match(line.strip()), COMMENT.match(line.strip())
        if language is None and fence:
            language, began, lines = fence[1], number, []
        elif language is not None and fence:
            found.append(Block(language, "\n".join(lines), began, why_not, file))
            why_not, file, language = "", "", None
        elif language is not None:
            lines.append(line)
        elif comment and comment[1] == "not run":
            why_not = comment[2]
        elif comment and comment[1] == "file":
            file = comment[2]
        elif comment:
            found.append(Block(comment[1], comment[2], number))
    assert language is None, f"{page}: a block is never closed"
    return found
