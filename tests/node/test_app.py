"""Whole nodes as processes of their own: how they start, stop, and refuse to start."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError, fail
from fallow.node.app import Options, run_node, until_told_to_stop
from fallow.node.config import Ticket, read_ticket, save_ticket
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.wire.local import NodeView, SeeBooks, SeeNode, SeeWallet, Wallet
from fallow.wire.messages import NodeAddress

STOP_S = 2.0
ALONE = Options(frozenset({"directory"}), bind="127.0.0.1:0")
CODE = """
import asyncio, json, sys
from pathlib import Path
from fallow.errors import FallowError
from fallow.node.app import Options, quiet_logs, run_node
from fallow.node.config import read_ticket

home, roles, ticket, bind = sys.argv[1:]
quiet_logs("info")

def ready(about):
    print(json.dumps(about), flush=True)

options = Options(frozenset(roles.split(",")), read_ticket(ticket) if ticket else None, bind=bind, ready=ready)
try:
    asyncio.run(run_node(Path(home), options))
except FallowError as error:
    print(json.dumps({"code": error.code}), flush=True)
    sys.exit(3)
"""


@dataclass
class Processes:
    """Nodes that end with the test."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, name: str, roles: str, ticket: str = "", bind: str = "127.0.0.1:0") -> subprocess.Popen[str]:
        words = [sys.executable, "-c", CODE, str(self.folder / name), roles, ticket, bind]
        with (self.folder / f"{name}.txt").open("a") as log:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        self.started.append(process)
        return process


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_a_founder_comes_up_stops_at_once_and_comes_up_as_it_was(nodes: Processes, tmp_path: Path) -> None:
    home = tmp_path / "founder"
    first = nodes.start("founder", "bank,directory,steward")
    about = await asyncio.to_thread(told, first)
    link = NodeSocket(socket_path(home))
    view, wallet = await link.call(SeeNode()), await link.call(SeeWallet())
    assert isinstance(view, NodeView)
    assert (view.roles, view.pid, view.ticket) == (("bank", "directory", "steward"), first.pid, about["ticket"])
    assert isinstance(wallet, Wallet)
    assert wallet.available_ucr > 0
    assert read_ticket(about["ticket"]).bank.direct[0].startswith("127.0.0.1:")

    second = nodes.start("founder", "bank,steward")  # two processes that write one log would ruin it
    assert await asyncio.to_thread(told, second) == {"code": "E1807"}

    first.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, STOP_S) == 0
    with pytest.raises(FallowError) as gone:
        await link.call(SeeBooks())
    assert gone.value.code == "E2004"
    log = SqliteEventLog(home / "log.db")
    assert len(log.read("steward")) == 1  # the second process did not start a steward
    log.close()

    again = await asyncio.to_thread(told, nodes.start("founder", "bank,directory,steward"))
    assert again == about


@pytest.mark.parametrize("roles", ["provider", "steward"])
async def test_a_node_that_waits_for_its_bank_stops_when_told(nodes: Processes, tmp_path: Path, roles: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        nowhere = NodeAddress(b"n" * 32, (f"127.0.0.1:{silent.getsockname()[1]}",))
        (tmp_path / "waiting").mkdir()
        save_ticket(tmp_path / "waiting", Ticket(nowhere, b"b" * 20, (), "fj_x"))
        process = nodes.start("waiting", roles)
        log = tmp_path / "waiting.txt"
        async with asyncio.timeout(30):
            while "waiting for the bank" not in log.read_text():
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, STOP_S) == 0


async def refusal(home: Path, **options: Any) -> str:
    with pytest.raises(FallowError) as refused:
        await run_node(home, dataclasses.replace(ALONE, **options))
    return refused.value.code


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert await refusal(tmp_path / "home", bind=f"127.0.0.1:{taken.getsockname()[1]}") == "E1804"
    assert await refusal(tmp_path / "home", bind="203.0.113.1:1") == "E1805"


async def test_homes_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text("colour = 'red'")
    assert await refusal(home) == "E1001"
    (home / "config.toml").unlink()
    (home / "log.db").write_bytes(b"this is no database" * 1_000)
    assert await refusal(home) == "E1004"
    (home / "log.db").unlink()
    (home / "network.txt").write_text("fallow1nonsense!")
    assert await refusal(home) == "E1005"
    (home / "network.txt").unlink()
    assert await refusal(home, roles=frozenset({"steward"})) == "E2001"
    (tmp_path / "file").write_text("")
    assert await refusal(tmp_path / "file") == "E1004"


async def test_of_several_failures_one_speaks_for_all() -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for code in ("E1603", "E1603"):
                group.create_task(broken(code))

    async def broken(code: str) -> None:
        raise fail(code, "full")

    with pytest.raises(FallowError) as first:
        await until_told_to_stop(work())
    assert first.value.code == "E1603"


async def test_work_that_ends_ends_the_wait() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    async with asyncio.timeout(5):
        await until_told_to_stop(work())
    assert done == [1]
