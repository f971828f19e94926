"""A form of jobs that a test adds goes from the command line to verified receipts like any other, through a crash."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.toy_form import Pair, PairJob
from tests.node.steward.steward_net import Desk, office

from fallow.cli.main import main
from fallow.node.steward import role
from fallow.rules.steward.shapes.registry import SHAPES

WORDS = [f"word-{number}" for number in range(60)]


class Shell:
    """The owner's commands, beside whichever node of theirs runs."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._home, self._capture = home, capture

    async def text(self, *words: str) -> str:
        self._capture.readouterr()
        code = await asyncio.to_thread(main, [*words, "--home", str(self._home)])
        said = self._capture.readouterr()
        assert code == 0, said
        return said.out

    async def json(self, *words: str) -> Any:
        # the log of the node, which is this process, goes to the same place
        found = await self.text(*words, "--json")
        return json.loads(next(line for line in found.splitlines() if line.startswith("{")))


@pytest.mark.parametrize("verify", ["none", "audit:probation=1,rate=0.1"])
async def test_a_job_of_a_toy_form_outlives_its_steward(
    verify: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, PairJob, Pair())
    monkeypatch.setattr(role, "COMPACT_BYTES", 20_000)
    async with asyncio.timeout(90), office(tmp_path, sellers=3) as (desk, _):
        home = desk.services.home
        source = tmp_path / "words.txt"
        source.write_text("\n".join(WORDS), "utf-8")
        shell = Shell(home, capsys)
        words = ("run", "echo", "--from", str(source), "--form", "pair", "--verify", verify)
        dry = await shell.json(*words, "--budget", "5", "--dry-run")
        assert dry["units"] == 2 * len(WORDS)
        started = await shell.json(*words, "--budget", "5", "--yes", "--detach", "--name", "pears")
        (job,) = desk.steward.state.jobs
        assert (await desk.view(job, lambda view: view.done > 0)).done < len(WORDS)
        await desk.kill()
        assert desk.services.home == home
        desk = await Desk(desk.pool).start()
        again = desk.steward.state.jobs[job]
        assert isinstance(again.spec.work, PairJob)
        assert not again.over
        followed = await shell.text("logs", "-f", "pears")
        assert "Pairs are done." in followed
        view = await desk.settled(job)
        assert (view.kind, view.phase, view.done, view.total) == ("pair", "done", len(WORDS), len(WORDS))
        listed = (await shell.json("jobs"))["jobs"]
        assert [(one["id"], one["kind"], one["phase"]) for one in listed] == [(started["id"], "pair", "done")]
        assert "  pair  done  60/60" in await shell.text("jobs", "pears")
        found = await shell.json("results", "pears")
        assert [output["text"] for output in found["outputs"]] == WORDS
        assert len(found["receipts"]) >= 2 * len(WORDS)
        assert await shell.text("verify", started["id"])
        assert not (await shell.json("wallet"))["escrowed_ucr"]
