"""The figures on the benchmarks' page are those of the last runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def make_tables(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(folder / "make_tables.py"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_page_says_what_was_measured() -> None:
    assert make_tables(FOLDER) == (FOLDER / "README.md").read_text("utf-8"), "python benchmarks/make_tables.py --write"


def test_every_result_is_on_the_page() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    for result in (FOLDER / "results").iterdir():
        assert f"<!-- table: {result.name} -->" in page


def test_another_figure_makes_another_page(tmp_path: Path) -> None:
    (tmp_path / "make_tables.py").write_text((FOLDER / "make_tables.py").read_text("utf-8"))
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("Before.\n<!-- table: one.json -->\n<!-- end -->\nAfter.\n")
    run = (
        '{"script": "one.py", "claim": "c", "arguments": ["--n", "3"], "began": "2026-01-02T", "commit": "abcdef012",'
        '"seed": 4, "load_before": [0.5, 0, 0], "left_out": ["Ray is not here"], "rows": [{"who": "fallow",'
        '"version": "1", "what": "speed", "unit": "1/s", "median": %s, "least": 1, "most": 12345, "n": 9,'
        '"goal": 100.0, "better": "more", "met": %s}]}'
    )
    (tmp_path / "results" / "one.json").write_text(run % ("99.5", "false"))
    first = make_tables(tmp_path)
    assert "| fallow | 1 | speed | 99.5 1/s | 1 to 12,345 | 9 | at least 100: **not met** |" in first
    assert "`python benchmarks/one.py --n 3`, 2026-01-02, commit abcdef0, load 0.5 before. Seed 4. Ray is" in first
    assert first.startswith("Before.\n")
    assert first.endswith("<!-- end -->\nAfter.\n")
    make_tables(tmp_path, "--write")
    assert (tmp_path / "README.md").read_text() == first
    (tmp_path / "results" / "one.json").write_text(run % ("100", "true"))
    assert "100 1/s | 1 to 12,345 | 9 | at least 100: met |" in make_tables(tmp_path)
    (tmp_path / "results" / "one.json").write_text(
        (run % ("100", "true")).replace('"n": 9', '"n": 9, "interval95": [98.5, 101]')
    )
    assert "100 1/s (95 %: 98.5 to 101) | 1 to 12,345 | 9 |" in make_tables(tmp_path)
