from __future__ import annotations

from tests.cli.terminal import Terminal


def test_why_names_figures(terminal: Terminal) -> None:
    assert "ram_bytes: wants 4.0 GiB, has 1.0 GiB" in terminal.fallow("why", "notes").out
    assert [candidate["fits"] for candidate in terminal.json("why", "notes")["candidates"]] == [True, False]
