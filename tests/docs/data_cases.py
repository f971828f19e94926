"""Every shape of row that there is (`data_cases.jsonl`), and what becomes of it: what `docs/reference/data.md` shows,
and what is tested against TRL (`tests/fixtures/record_trl.py` asks it)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A row. `same` is the row of TRL's own that it must be treated as, where TRL does not take it as it stands; `code`
    the refusal, which says `words`."""

    name: str
    row: dict[str, Any]
    same: dict[str, Any] | None = None
    code: str = ""
    words: str = ""

    @property
    def trl(self) -> dict[str, Any]:
        """What TRL gets."""
        return self.same or self.row


CASES = [Case(**json.loads(line)) for line in Path(__file__).with_suffix(".jsonl").read_text().splitlines()]
ACCEPTED = [case for case in CASES if not case.code]
REFUSED = [case for case in CASES if case.code]
