"""Homes of the form before, recorded in the midst of work (`tests/fixtures/record_home.py`), opened by this one: what
is signed or booked is there as it was, what was under way has ended, and its money comes back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from fallow.adapters.clock import SystemEntropy
from fallow.adapters.keys import load_identity
from fallow.cli.demo_net import COMMAND, Network
from fallow.errors import FallowError
from fallow.node.bank import BankPolicy, open_books
from fallow.sdk.client import AsyncFallow
from fallow.units import from_text, to_text
from fallow.wire.local import PoolBooks, SeeBooks
from fallow.wire.receipt_checks import intact, verify

FIXTURES = Path(__file__).parent.parent / "fixtures"
FACTS: dict[str, Any] = json.loads((FIXTURES / "home_before.json").read_text("utf-8"))
HOMES = ("pool", "provider-1", "provider-2")


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURES / "home_before.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python 3.11.2 has none
        archive.extractall(tmp_path)
    return tmp_path


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.2)


async def test_keys_books_and_receipt_files_are_what_they_were(homes: Path) -> None:
    who = {name: load_identity(homes / name / "keys") for name in HOMES}
    with closing(open_books(homes / "pool/ledger.db", who["pool"], SystemEntropy(), BankPolicy())) as ledger:
        books = asdict(await ledger.books())
        assert books | {"bank": books["bank"].hex()} == FACTS["books"]
        for name, one in who.items():
            recorded = FACTS["homes"][name]
            assert (one.node.hex(), one.account.hex()) == (recorded["node"], recorded["account"])
            balance = asdict(await ledger.balance(one.account)) | {"account": one.account.hex()}
            assert {key: balance.get(key, recorded[key]) for key in recorded} == recorded
    for receipt in FACTS["receipts"]:
        vouched = "incomplete" if receipt["verdict"] == "accepted" else "holds"
        for home, outcome in (("pool", vouched), ("", "not anchored")):
            command = [*COMMAND, "verify", str(homes / receipt["file"]), "--home", str(homes / home), "--json"]
            ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
            said = json.loads(ran.stdout.splitlines()[0])
            assert (ran.returncode, said["outcome"]) == (0 if outcome == "holds" else 6, outcome)
            # what the file says is as right as it was; some words are others today
            assert {check["name"] for check in said["checks"] if check["ok"]} >= set(receipt["checks"])
            assert said["receipt"] == receipt["receipt"]
            if outcome == "incomplete":
                stake, draw = said["lacks"]
                assert "had a lease and a stake" in stake
                assert "the draw of those who checked" in draw


async def test_jobs_under_way_end_with_a_code_and_their_escrow_comes_back(homes: Path) -> None:
    with Network(homes) as network:
        pool = network.start("pool", "up", "--roles", "bank,directory,steward")
        await pool.wait_until_ready()
        client = AsyncFallow(pool.home)
        jobs = {to_text("job", view.job): view for view in await client.jobs()}
        assert set(jobs) == {*FACTS["ended"], *FACTS["under_way"]}
        for recorded in FACTS["jobs"]:
            view = jobs[recorded["id"]]
            assert (view.kind, view.name, view.budget_ucr) == (
                recorded["kind"], recorded["name"], recorded["budget_ucr"]
            )  # fmt: skip
            under_way = recorded["id"] in FACTS["under_way"]
            expected = ("failed", "E1405") if under_way else (recorded["phase"], recorded["failure_code"])
            assert (view.phase, view.failure_code) == expected
        notes = [note.text async for note in (await client.job(FACTS["under_way"][0])).watch(follow=False)]
        assert "comes back" in notes[-1]
        for number in (1, 2):
            await network.start(f"provider-{number}", "provide", pool.announced["ticket"]).wait_until_ready()

        async def settled() -> bool:
            books = await client.call(SeeBooks(), PoolBooks)
            return books.open_escrows == 0 and books.sum_ucr == books.minted_ucr == FACTS["books"]["minted_ucr"]

        await until(settled)
        wallet, was = await client.wallet(), FACTS["homes"]["pool"]
        owed = sum(row["paid_ucr"] for job in FACTS["jobs"] for row in job["leases"] if job["id"] in FACTS["under_way"])
        assert wallet.escrowed_ucr == 0
        assert wallet.available_ucr == was["available_ucr"] + was["escrowed_ucr"] - owed
        await again(client)
        shown = await client.jobs()
        network.kill(pool)
        await network.restart(pool)
        assert await client.jobs() == shown


async def again(client: AsyncFallow) -> None:
    """The steward still makes the receipts of before, a new job runs, and another start changes nothing."""
    for receipt in FACTS["receipts"]:
        assert intact(verify(await client.receipt(from_text("receipt", Path(receipt["file"]).stem))))
    job = await client.run("echo", [b"after"], budget="0.1", workers=1, verify="none")
    await job.wait()
    assert [output.value for output in (await job.results()).outputs] == [b"after"]
    with pytest.raises(FallowError) as gone:
        await (await client.job(FACTS["under_way"][0])).results()
    assert gone.value.code == "E1405"
