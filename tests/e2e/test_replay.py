"""`fallow verify --replay` against real processes: honest work agrees, and a cheat that nobody checked is found after the
fact, with evidence that somebody else can use."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.kill_any import RECIPE, prepare, settled
from tests.e2e.test_network import receipt, wait_until_served

from fallow.cli.demo_net import COMMAND, Network
from fallow.sdk.client import AsyncFallow
from fallow.sdk.lanes import AsyncLane
from fallow.units import to_text
from fallow.wire.codec import encode
from fallow.wire.messages import LaneTask

EXACT = msgspec.structs.replace(RECIPE, arithmetic="exact", inner_steps=3, rounds=2)


async def fallow(home: Path, *words: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """-> exit code, the JSON lines on stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words), "--json", "--home", str(home),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, [json.loads(line) for line in out.decode().splitlines()], err.decode()


def replays(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["replay"] for line in lines if "replay" in line]


async def trained(client: AsyncFallow, folder: Path) -> str:
    """A job that nobody checks; -> its id."""
    job = await client.train(folder / "model", folder / "data.txt", EXACT, budget="5", workers=2, verify="none")
    view = await asyncio.wait_for(settled(job), 180)
    assert view.phase == "done", view.failure
    return job.text


async def test_honest(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(2, cheats=0)
        job = await trained(client, tmp_path)
        code, lines, err = await fallow(client.home, "verify", job, "--replay")
        print(code, err)
        print(json.dumps(lines, indent=1)[:20000])
        assert code == 0
