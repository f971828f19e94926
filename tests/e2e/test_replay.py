"""`fallow verify --replay` against real processes: honest work agrees, and a cheat that nobody checked is found after
the fact, with evidence that somebody else can use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.kill_any import RECIPE, prepare, settled
from tests.e2e.test_network import receipt, wait_until_served

from fallow.cli.demo_net import COMMAND, Network
from fallow.kinds.generate.tasks import ChatTurn, Generate
from fallow.sdk.client import AsyncFallow
from fallow.units import to_text
from fallow.wire.codec import decode, encode
from fallow.wire.documents import Lease
from fallow.wire.receipts import TaskWork, read_receipt
from fallow.wire.tasks import Part

EXACT = msgspec.structs.replace(RECIPE, arithmetic="exact", inner_steps=3, rounds=1)
PROMPT = encode(Generate((ChatTurn("user", "The old farmer"),), "", 6))


async def fallow(home: Path, *words: str | Path) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """-> the exit code, what `--replay` said of each receipt, and the error at the end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "verify", *map(str, words), "--replay", "--json", "--home", str(home),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    lines = [json.loads(line) for line in out.decode().splitlines()]
    error = next((line["error"] for line in lines if "error" in line), {})
    return process.returncode or 0, [line["replay"] for line in lines if "replay" in line], error


async def trained(client: AsyncFallow, folder: Path) -> dict[str, Path]:
    """The receipts of a job that nobody checks, as files, by what they are of: each round's by its provider's account,
    and "finish"."""
    job = await client.train(folder / "model", folder / "data.txt", EXACT, budget="5", workers=2, verify="none")
    view = await asyncio.wait_for(settled(job), 180)
    assert view.phase == "done", view.failure
    found: dict[str, Path] = {}
    for identifier in await job.receipts():
        data = await client.receipt(identifier)
        read = read_receipt(data)
        assert isinstance(read.work, TaskWork)
        is_round = any(part.name == "update" for part in read.work.output.parts)
        provider = to_text("account", decode(Lease, read.lease.body).provider)
        name = provider if is_round else "finish"
        found[name] = folder / f"{name}.receipt"
        found[name].write_bytes(data)
    assert len(found) == 3
    return found


async def check_found(client: AsyncFallow, cheats: Path, false_links: list[int]) -> None:
    """All links of a cheat's round: those that are false are named, and the evidence is enough for others."""
    code, (said,), error = await fallow(client.home, cheats, "--links", "all")
    assert (code, error["code"]) == (4, "E1503")
    assert [row["where"] for row in said["differences"]] == [f"link {index}" for index in false_links]
    assert said["evidence"] == f"{cheats}.evidence.json"
    assert "The lease is settled" in error["money"]
    evidence = json.loads(Path(said["evidence"]).read_text("utf-8"))
    assert (evidence["receipt"], evidence["differences"]) == (f"r_{evidence['receipt'][2:]}", said["differences"])
    (kept,) = Path(evidence["kept"]).glob("*.receipt")
    assert kept.read_bytes() == cheats.read_bytes()
    one = [index for index in range(6) if index not in false_links]
    assert len(said["links"]) == 6
    assert one  # links that the cheat did do


async def check_altered(network: Network, client: AsyncFallow, honest: Path) -> None:
    """States that a provider altered, or lost, are missing: nothing else passes for them."""
    read = read_receipt(honest.read_bytes())
    assert isinstance(read.work, TaskWork)
    states = {part.blob.hex() for part in read.work.output.parts if part.name.startswith("trace/")}
    altered = 0
    for home in (member.home for member in network.members):
        for blob in states:
            file = home / "blobs" / "blobs" / blob[:2] / blob[2:]
            if file.exists():
                file.chmod(0o600)
                file.write_bytes(bytes(reversed(file.read_bytes())))
                altered += 1
    assert altered
    code, (said,), error = await fallow(client.home, honest)
    assert (code, error["code"]) == (5, "E1602")
    assert said["agrees"] is None
    assert "trace/" in error["what"]


async def check_answers(client: AsyncFallow, folder: Path) -> tuple[Path, Path]:
    """-> the receipts of an answer in a batch, and of one on a lane."""
    model = await client.import_path(folder / "model")
    inputs = (Part("model", model.tree, model.size_bytes),)
    job = await client.run("generate", [PROMPT], inputs, 200, budget="1", workers=1, verify="none")
    await asyncio.wait_for(settled(job), 90)
    batch, lane = folder / "batch.receipt", folder / "lane.receipt"
    batch.write_bytes(await client.receipt((await job.receipts())[0]))
    serving = await client.serve("tiny", folder / "model", None, 128, budget="1", workers=1, verify="none")
    await wait_until_served(client, "tiny")
    async with client.lane(serving, receipts=True) as opened:
        answer = await opened.run(PROMPT, 5)
    lane.write_bytes(await receipt(client, to_text("receipt", answer.receipt)))
    await serving.cancel()
    await asyncio.wait_for(settled(serving), 60)
    code, said, error = await fallow(client.home, batch, lane)
    assert (code, [one["agrees"] for one in said]) == (0, [True, True]), error
    assert not any("does not name it" in one for one in said[0]["not_checked"])
    assert any("does not name it" in one for one in said[1]["not_checked"])
    assert not any("had to end" in one for one in said[1]["not_checked"])
    return batch, lane


async def check_alone(home: Path, honest: Path, folder: Path) -> None:
    """Without a node, a round needs states that only others have, whatever its owner has."""
    code, _, error = await fallow(home, honest, "--model", folder / "model", "--data", folder / "data.txt")
    assert (code, error["code"]) == (5, "E1602")
    assert error["next"].startswith("fallow up")
    assert "model (" not in error["what"]


@pytest.mark.slow
async def test_what_nobody_checked_is_checked_afterwards(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(2, cheats=1, cheat="flip")
        cheat = network.member("provider-2").announced["account"]
        of = await trained(client, tmp_path)
        honest = next(path for name, path in of.items() if name not in ("finish", cheat))
        code, said, error = await fallow(client.home, honest, of["finish"], "--links", "all")
        assert (code, [one["agrees"] for one in said]) == (0, [True, True]), error
        assert (said[0]["links"], said[0]["cost_ucr"]) == ([*range(6)], 0)
        await check_found(client, of[cheat], [0])
        await check_altered(network, client, honest)
        network.kill(network.member("steward"))
        await check_alone(client.home, honest, tmp_path)


@pytest.mark.slow
async def test_steps_that_were_skipped_are_found(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(2, cheats=1, cheat="skip")
        cheat = network.member("provider-2").announced["account"]
        of = await trained(client, tmp_path)
        await check_found(client, of[cheat], [0, 1])


@pytest.mark.slow
async def test_answers_are_given_again(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(1, cheats=0)
        batch, _ = await check_answers(client, tmp_path)
        bank = network.member("bank").announced["account"]
    for named, expected in ((("--bank", bank), 0), ((), 6)):
        code, (said,), _ = await fallow(tmp_path / "nobody", batch, "--model", tmp_path / "model", *named)
        assert (code, said["agrees"]) == (expected, True)
    code, _, error = await fallow(tmp_path / "nobody", batch, "--model", tmp_path / "data.txt")
    assert (code, error["code"]) == (2, "E2001")
