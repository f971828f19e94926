from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Terminal

from fallow.cli import provide
from fallow.cli.provide import joined


def test_a_provider_needs_a_pool(terminal: Terminal) -> None:
    said = terminal.fallow("provide")
    assert (said.code, said.error_code) == (2, "E1005")


def test_a_remembered_pool_will_do(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[frozenset[str]] = []

    def start(_home: Path, roles: frozenset[str], *_: object) -> int:
        started.append(roles)
        return 0

    monkeypatch.setattr(provide, "start", start)
    (terminal.home / "network.txt").write_text("fallow1...")
    assert joined(terminal.home)
    assert terminal.fallow("provide").code == 0
    assert started == [frozenset({"provider"})]


def test_what_is_no_ticket(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "new"
    assert terminal.fallow("provide", "hello").error_code == "E1005"
