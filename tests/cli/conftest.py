from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import ADDRESS, running
from tests.wire import parties

from fallow.node.config import Ticket, save_ticket


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    home = tmp_path / "home"
    with running(home) as node:
        yield Terminal(home, node, capsys)


@pytest.fixture
def member(terminal: Terminal) -> Terminal:
    """A home of the pool whose receipts `tests/wire/parties.py` makes."""
    save_ticket(terminal.home, Ticket(ADDRESS, parties.BANK.account, (), ""))
    return terminal
