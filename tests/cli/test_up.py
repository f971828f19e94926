from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal

from fallow.cli.up import FOUNDER, MEMBER, farewell, for_sale, roles_for
from fallow.node.config import Config
from fallow.node.local_socket import lock_home


def test_a_home_decides_what_a_node_is(tmp_path: Path) -> None:
    assert roles_for(tmp_path, None, ticket=False, provide=False) == FOUNDER
    assert roles_for(tmp_path, None, ticket=True, provide=True) == MEMBER | {"provider"}
    (tmp_path / "network.txt").write_text("")
    assert roles_for(tmp_path, None, ticket=False, provide=False) == MEMBER
    (tmp_path / "ledger.db").write_text("")
    assert roles_for(tmp_path, None, ticket=False, provide=False) == FOUNDER
    assert roles_for(tmp_path, frozenset({"bank"}), ticket=False, provide=False) == {"bank"}


def test_a_founder_with_its_books_in_postgresql_stays_one(tmp_path: Path) -> None:
    (tmp_path / "network.txt").write_text("")
    (tmp_path / "config.toml").write_text('ledger = "postgresql://fallow@/books"')
    assert roles_for(tmp_path, None, ticket=False, provide=False) == FOUNDER


@pytest.mark.parametrize("roles", ["", "king", "bank,king", ","])
def test_roles_that_there_are_not(terminal: Terminal, roles: str) -> None:
    assert terminal.fallow("up", "--roles", roles).error_code == "E2001"


def test_a_taken_port_fails_before_anything_starts(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "new"
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = terminal.fallow("up", "--port", str(other.getsockname()[1]))
    assert (said.code, said.error_code) == (5, "E1804")
    assert not (terminal.home / "ledger.db").exists()


def test_a_node_that_runs_already_is_named_before_its_port(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "new"
    with lock_home(terminal.home), socket.create_server(("127.0.0.1", 0)) as door:
        said = terminal.fallow("up", "--port", str(door.getsockname()[1]))
    assert (said.code, said.error_code) == (2, "E1807")
    assert str(os.getpid()) in said.err


def test_a_provider_says_what_it_sells_and_what_is_at_stake(tmp_path: Path) -> None:
    said = for_sale(tmp_path, Config())
    assert "train 0.0005 cr" in said
    assert "10.00 cr" in said
    assert f"fallow wallet --home {tmp_path}" in said
    assert "stake stays" in farewell(frozenset({"provider"}))
    assert "Jobs go on" in farewell(FOUNDER)


@pytest.mark.parametrize(
    ("content", "code"), [("this is not TOML", "E1001"), ("colour = 'red'", "E1001"), ("gateway_port = 'x'", "E1001")]
)
def test_a_configuration_that_cannot_be_read(terminal: Terminal, tmp_path: Path, content: str, code: str) -> None:
    terminal.home = tmp_path / "new"
    terminal.home.mkdir()
    (terminal.home / "config.toml").write_text(content)
    assert terminal.fallow("up").error_code == code


def test_a_home_that_is_a_file(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "file"
    terminal.home.write_text("")
    assert terminal.fallow("up").error_code == "E1004"


def test_what_is_no_port_and_no_ticket(terminal: Terminal, tmp_path: Path) -> None:
    terminal.home = tmp_path / "new"
    assert terminal.fallow("up", "--port", "99999").error_code == "E2001"
    assert terminal.fallow("up", "--ticket", "hello").error_code == "E1005"


def test_a_real_node_comes_up_and_an_interrupt_ends_it(tmp_path: Path) -> None:
    """A process of its own: signals and exit codes are what is tested here."""
    command = [sys.executable, "-m", "fallow.cli.main", "--home", str(tmp_path / "pool"), "--json", "up", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as node:
        assert node.stdout is not None
        try:
            line = node.stdout.readline()
            assert '"ready": true' in line, node.communicate(timeout=30)
            assert '"ticket": "fallow1' in line
            node.send_signal(signal.SIGINT)
            _, err = node.communicate(timeout=30)
        finally:
            node.kill()
    assert node.returncode == 0, err
    assert "The node has stopped" in err


def test_a_door_of_its_own_for_another_home(tmp_path: Path) -> None:
    home, steward = tmp_path / "door", tmp_path / "steward"
    command = [sys.executable, "-m", "fallow.cli.main", "up", "--steward", str(steward), "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"FALLOW_HOME": str(home)}
    ) as door:
        assert door.stdout is not None
        try:
            announced = json.loads(door.stdout.readline())
            url = announced["base_url"]
            assert (home / "gateway").read_text().strip() == url
            with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=10) as reply:
                assert reply.status == 200
            door.terminate()
            _, err = door.communicate(timeout=30)
        finally:
            door.kill()
    assert door.returncode == 0, err
    assert "The door is closed" in err
