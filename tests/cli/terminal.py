"""Running the command line in this process, against the fake node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.fake_node import FakeNode

from fallow.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)

    @property
    def error_code(self) -> str:
        """The code in the last of the five lines."""
        lines = self.err.strip().splitlines()
        assert len(lines) >= 5, self.err
        assert [line.split(":")[0] for line in lines[-4:-1]] == ["Likely cause", "Money", "Next"], self.err
        assert "Traceback" not in self.err
        return lines[-1].split()[0]


@dataclass
class Terminal:
    """A home, the fake node that answers in it (or None), and pytest's eyes."""

    home: Path
    node: FakeNode
    capture: pytest.CaptureFixture[str]

    def fallow(self, *words: str | Path) -> Said:
        self.capture.readouterr()
        code = main(["--home", str(self.home), *map(str, words)])
        said = self.capture.readouterr()
        return Said(code, said.out, said.err)

    def json(self, *words: str | Path) -> Any:
        said = self.fallow(*words, "--json")
        assert said.code == 0, said
        return said.data
