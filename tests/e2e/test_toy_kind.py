"""A kind of work that a test adds is offered, priced, run, paid, shown and verified like any other."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import toy_kind
from tests.node.provider import provider_net
from tests.node.provider.provider_net import Seller, open_pool
from tests.node.steward.steward_net import Desk

from fallow.adapters.runners.process import ProcessRunner
from fallow.cli.main import main
from fallow.kinds.registry import KINDS
from fallow.node.config import Config, ProviderConfig
from fallow.node.directory import search_signed

COMMAND = (sys.executable, str(Path(toy_kind.__file__)))


@dataclass
class Shell:
    """The command line, beside a node of this process."""

    home: Path
    capture: pytest.CaptureFixture[str]

    async def json(self, *words: str) -> Any:
        self.capture.readouterr()
        code = await asyncio.to_thread(main, [*words, "--home", str(self.home), "--json"])
        said = self.capture.readouterr()
        assert code == 0, said
        # the log of the node, which is this process, goes to the same place
        return json.loads(next(line for line in said.out.splitlines() if line.startswith("{")))


async def test_a_toy_kind_runs_a_whole_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, "shout", toy_kind.Shout())
    monkeypatch.setattr(provider_net, "ProcessRunner", lambda: ProcessRunner(COMMAND, boxed=False))  # sees tests
    config = Config(provider=ProviderConfig(cpus=2, ram="2G", disk="1G", stake="10"))
    async with open_pool(tmp_path) as pool:
        for name in ("pat0", "pat1"):
            await Seller(pool, name, config).start()
        desk = await Desk(pool).start()
        s = desk.services
        async with asyncio.timeout(20):
            while len(await search_signed(s.rpc, s.directories, "shout", s.clock.now_ms())) < 2:
                await asyncio.sleep(0.05)
        shell = Shell(s.home, capsys)
        offers = (await shell.json("offers", "--kind", "shout"))["offers"]
        assert len(offers) == 2
        assert all({rate["kind"] for rate in offer["rates"]} >= {"shout"} for offer in offers)
        ran = await shell.json("run", "shout", "hello", "hey", "--budget", "1", "--yes")
        assert [output["text"] for output in ran["outputs"]] == ["HELLO!", "HEY!"]
        assert ran["spent_ucr"] > 0
        found = await shell.json("results", ran["id"])
        assert [output["text"] for output in found["outputs"]] == ["HELLO!", "HEY!"]
        why = await shell.json("why", ran["id"])
        assert why["units"] == 10
        lacks = [row["resource"] for one in why["candidates"] for row in one["shortfalls"]]
        assert len(why["candidates"]) == 2
        assert "kind" not in lacks  # one of them may be busy with the job itself, and ask for more
        await desk.settled(desk.steward.jobs()[0])
        assert found["receipts"]
        for receipt in found["receipts"]:
            assert (await shell.json("verify", receipt))["ok"]
