"""What a training would read, shown before its price."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.cli.output import Output
from fallow.data.read import DataFacts, inspect_data
from fallow.errors import fail
from fallow.units import format_size
from fallow.wire.tasks import Recipe

if TYPE_CHECKING:
    from fallow.workloads.survey import DataSurvey

INDENT = "  "
OPEN, CLOSE = "⟦", "⟧"
UNCOUNTED = "Its tokens are counted by the workers: pip install 'fallow[train]' shows them here."


def check_data(path: Path, length: int) -> DataFacts:
    """Read all of it, before anybody is asked for anything. Errors: as `data.read.rows_of`; E1703 when a text cannot be
    long enough for two sequences of `length` tokens."""
    facts, least = inspect_data(path), 2 * length - 1
    if set(facts.formats) == {"text"} and facts.size_bytes < least:  # a token of a text has at least one byte
        what = f"{path.name} has {facts.size_bytes} bytes; {length} tokens a sequence need at least {least}."
        raise fail("E1703", what, next_step="Give a longer file, or a smaller --length.")
    return facts


def read_data(facts: DataFacts, path: Path, model: Path, length: int, loss: str, out: Output) -> dict[str, Any]:
    """Say what was read (`facts`) and what the data at `path` is to the model, and return it for programs;
    `sequence_tokens` is the length that was chosen where `length` is 0. Errors: as `workloads.survey.survey`."""
    if importlib.util.find_spec("transformers") is None:
        out.say(f"{_what_was_read(facts)}\n{UNCOUNTED}")
        return _facts(facts) | {"sequence_tokens": length or Recipe(method="lora").sequence_tokens}
    from fallow.workloads.survey import survey

    found = survey(path, model, length, loss)
    out.say("\n".join([_what_was_read(facts), *_what_becomes_of_it(found), *_example(found)]))
    return _facts(facts) | {
        "tokens": found.tokens, "learned_tokens": found.learned, "sequences": found.sequences,
        "sequence_tokens": found.length, "rows_cut": found.cut, "rows_without_answers": found.unlearned,
        "rows_split": found.several, "answers_opened_otherwise": found.opens, "answers_without_end": found.endless,
        "example": [{"text": text, "learned": learned} for text, learned in found.example],
    }  # fmt: skip


def _facts(facts: DataFacts) -> dict[str, Any]:
    return {
        "files": facts.files, "files_left_out": facts.left_out, "bytes": facts.size_bytes, "rows": facts.rows,
        "rows_empty": facts.empty, "formats": dict(facts.formats), "shapes": dict(facts.shapes),
    }  # fmt: skip


def _what_was_read(facts: DataFacts) -> str:
    files = "" if facts.files == 1 else f" in {facts.files} files"
    rest = f"; {facts.left_out} files of other splits are left out" if facts.left_out else ""
    return f"Read {_counted(facts.shapes)}{files} ({', '.join(facts.formats)}, {format_size(facts.size_bytes)}){rest}."


def _counted(shapes: Counter[str]) -> str:
    return ", ".join(f"{count:,} {'row' if count == 1 else 'rows'} of {shape}" for shape, count in shapes.items())


def _what_becomes_of_it(found: DataSurvey) -> list[str]:
    share = found.learned * 100 // max(1, found.tokens)
    rows = f"in {found.sequences:,} sequences of {found.length}"
    lines = [f"{found.tokens:,} tokens, of which {found.learned:,} are learned ({share} %), {rows}."]
    for count, what in (
        (found.cut, f"Rows cut at {found.length} tokens (a larger --length keeps their ends)"),
        (found.unlearned, "Rows with nothing to learn, left out"),
        (found.several, "Chats told several times, since the model's template changes earlier answers"),
        (found.opens, "Answers that do not begin as the model's template opens one when it is asked"),
        (found.endless, "Answers without a token that ends them: the model may not learn to stop"),
    ):
        if count:
            lines.append(f"{what}: {count:,}.")
    return lines


def _example(found: DataSurvey) -> list[str]:
    text = "".join(f"{OPEN}{part}{CLOSE}" if learned else part for part, learned in found.example)
    return [f"The first row, what is learned in {OPEN}{CLOSE}:", *(INDENT + line for line in text.splitlines())]
