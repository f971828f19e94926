from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Terminal

from fallow.cli.explain import page, write_pages
from fallow.errors import CODES


def test_one_code(terminal: Terminal) -> None:
    said = terminal.fallow("explain", "e1201")
    assert "no offers" in said.out
    assert terminal.json("explain", "E1801")["retryable"] is True


def test_all_codes(terminal: Terminal) -> None:
    assert len(terminal.json("explain", "--list")["codes"]) == len(CODES)
    assert len(terminal.fallow("explain").out.splitlines()) == len(CODES) + 1


def test_no_such_code(terminal: Terminal) -> None:
    assert terminal.fallow("explain", "E0000").error_code == "E2005"


def test_pages_are_written_and_stale_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "E0001.md").write_text("old")
    write_pages(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(CODES)
    assert (tmp_path / "E1201.md").read_text("utf-8") == page(CODES["E1201"])
