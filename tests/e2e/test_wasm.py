"""A person's own program, from the command line through real nodes to boxed workers and back: a cheat among them is
caught by audit, the receipts verify, and the runs can be done again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.wasm_programs import CAT, EXIT_3, WRITE_FILE, wasm

from fallow.cli.demo_net import COMMAND, Network
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import ENDED
from fallow.sdk.programs import RunPlan


class Said(NamedTuple):
    code: int
    answer: dict[str, Any]
    error: dict[str, Any]


async def fallow(home: Path, *words: str | Path, rest: tuple[str, ...] = ()) -> Said:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words), "--json", "--home", str(home), *rest,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    lines = [json.loads(line) for line in (out + err).decode().splitlines() if line.startswith("{")]
    answer = {key: value for line in lines if "error" not in line for key, value in line.items()}
    error = next((line["error"] for line in lines if "error" in line), {})
    return Said(process.returncode or 0, answer, error)


async def check_many(client: AsyncFallow, folder: Path, cheat: bytes) -> str:
    """One run for each file -> the job's id. Whoever read nothing of its input is not paid for it."""
    program, inputs = folder / "cat.wasm", [folder / f"part-{number}.csv" for number in range(6)]
    program.write_bytes(wasm(CAT))
    for number, path in enumerate(inputs):
        path.write_text(f"row {number}\n" * (number + 1))
    words = ("run", "wasm", program, "--workers", "3", "--verify", "audit:rate=1", "--input", *inputs)
    said = await fallow(client.home, *words, "--budget", "1", "--yes", "--out", folder / "results")
    assert said.code == 0, said
    assert [output["text"] for output in said.answer["outputs"]] == [path.read_text().strip() for path in inputs]
    assert [output["name"] for output in said.answer["outputs"]] == [path.name for path in inputs]
    for path in inputs:
        assert (folder / "results" / path.name / "stdout").read_bytes() == path.read_bytes()
    for lease in (await (await client.job(said.answer["id"])).view()).leases:
        if lease.account == cheat:
            assert lease.paid_ucr == 0
            assert lease.slashed_ucr > 0 or not lease.tasks_claimed
        else:
            assert lease.slashed_ucr == 0
            assert lease.units_claimed == lease.tasks_claimed  # a unit each, of the 20,000 that each might have used
    return said.answer["id"]


async def check_receipts(client: AsyncFallow, job: str) -> None:
    found = await fallow(client.home, "results", job)
    assert found.answer["receipts"]
    for receipt in found.answer["receipts"][:2]:
        said = await fallow(client.home, "verify", receipt, "--replay")
        assert said.answer["replay"]["agrees"], said
        assert said.code == 0, said


async def check_endings(client: AsyncFallow, folder: Path) -> None:
    """How a program ends is its owner's result, paid and not tried elsewhere."""
    failing, writing = folder / "failing.wasm", folder / "writing.wasm"
    failing.write_bytes(wasm(EXIT_3))
    writing.write_bytes(wasm(WRITE_FILE))
    said = await fallow(client.home, "run", "wasm", failing, "--budget", "1", "--yes")
    assert (said.code, said.error["code"]) == (2, "E1724")
    assert "exit status 3" in said.error["what"]
    assert "was paid" in said.error["money"]
    assert said.answer["outputs"][0]["ended_well"] is False
    job = await client.run_program("wasm", writing, RunPlan(), budget="1")
    await job.wait()
    (output,) = (await job.results()).outputs
    assert [part.name for part in output.parts] == ["out/result"]


async def ended(client: AsyncFallow) -> None:
    async with asyncio.timeout(60):
        while not all(view.phase in ENDED for view in await client.jobs()):
            await asyncio.sleep(0.1)


async def test_a_program_of_ones_own(tmp_path: Path) -> None:
    with Network(tmp_path / "net") as network:
        client = await network.found(3, cheats=1)
        cheat = next(member for member in network.providers if member.cheats)
        account = bytes.fromhex(cheat.announced["account"].removeprefix("0x"))
        job = await check_many(client, tmp_path, account)
        await ended(client)
        await check_receipts(client, job)
        await check_endings(client, tmp_path)
