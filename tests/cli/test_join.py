from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Terminal
from tests.sdk.fake_node import ADDRESS, BANK, ME

from fallow.node.config import Ticket, load_ticket, write_ticket

TICKET = Ticket(ADDRESS, BANK, (ADDRESS,), "token")


def test_a_ticket_is_remembered_as_a_secret(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "new"
    assert terminal.json("join", write_ticket(TICKET))["bank"] == "0x" + BANK.hex()
    assert load_ticket(terminal.home) == TICKET
    assert (terminal.home / "network.txt").stat().st_mode & 0o077 == 0


def test_a_home_belongs_to_one_pool(terminal: Terminal) -> None:
    assert terminal.fallow("join", write_ticket(TICKET)).code == 0
    assert terminal.fallow("join", write_ticket(TICKET)).code == 0
    said = terminal.fallow("join", write_ticket(Ticket(ADDRESS, ME, (), "token")))
    assert said.error_code == "E1005"
    assert load_ticket(terminal.home) == TICKET


def test_what_is_no_ticket(terminal: Terminal) -> None:
    ticket = write_ticket(TICKET)
    for text in ("", "hello", ticket[:-5], ticket.replace("a", "b"), "fallow1"):
        said = terminal.fallow("join", text)
        assert said.error_code in ("E1005", "E1102"), text
        assert not (terminal.home / "network.txt").exists()
