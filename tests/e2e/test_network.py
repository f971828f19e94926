"""A whole network of real processes: a cheat among the providers, a model trained, served, and asked by the official
client; then the money and the receipts."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import openai
import pytest
from tests.e2e.kill_any import books, prepare, settled, start_job

from fallow.cli.demo_net import COMMAND, Network
from fallow.errors import FallowError
from fallow.rules.steward.proof import Anchor, prove
from fallow.sdk.client import AsyncFallow
from fallow.units import to_text
from fallow.wire.receipts import read_receipt

TURNS = [{"role": "user", "content": "The old farmer"}]


async def wait_until_served(client: AsyncFallow, name: str) -> None:
    async with asyncio.timeout(60):
        while not any(model.name == name and model.ready for model in await client.models()):
            await asyncio.sleep(0.1)


async def receipt(client: AsyncFallow, name: str) -> bytes:
    """A lane's receipt is there once the provider has signed its batch."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.receipt(name)
            except FallowError:
                await asyncio.sleep(0.1)


async def check_training(client: AsyncFallow, folder: Path, cheat: bytes) -> list[bytes]:
    """-> the receipts."""
    job = await start_job(client, folder)
    view = await asyncio.wait_for(settled(job), 180)
    assert view.phase == "done", view.failure
    assert [r.agreed for r in view.rounds] == [True, True, True]
    assert float(view.rounds[-1].loss) < float(view.rounds[0].loss)
    for lease in view.leases:
        if lease.account == cheat:  # it may be too slow to get work, but never works unpunished
            assert lease.paid_ucr == 0
            assert lease.slashed_ucr > 0 or not lease.tasks_claimed
        else:
            assert lease.slashed_ucr == 0
    await job.save(folder / "tuned")
    assert (folder / "tuned" / "adapter_config.json").is_file()
    return [await client.receipt(one) for one in await job.receipts()]


async def check_serving(client: AsyncFallow, url: str, folder: Path) -> bytes:
    """-> the receipt of an answer."""
    terms = {"budget": "1", "workers": 1, "verify": "none"}
    serving = await client.serve("tiny", folder / "model", folder / "tuned", 128, **terms)  # type: ignore[arg-type]
    await wait_until_served(client, "tiny")
    secret, poor = await client.make_key("rich", "0.5"), await client.make_key("poor", "0.000001")
    async with openai.AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=60) as api:
        whole = await api.chat.completions.create(model="tiny", messages=TURNS, max_tokens=8, temperature=0)  # type: ignore[arg-type]
        stream = await api.chat.completions.create(
            model="tiny", messages=TURNS, max_tokens=8, temperature=0, stream=True  # type: ignore[arg-type]
        )  # fmt: skip
        pieces = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
        assert text == whole.choices[0].message.content
        assert whole.usage is not None
        assert 0 < whole.usage.completion_tokens <= 8
        with pytest.raises(openai.NotFoundError):
            await api.chat.completions.create(model="huge", messages=TURNS)  # type: ignore[arg-type]
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="tiny", messages=TURNS, max_tokens=4000)  # type: ignore[arg-type]
        with pytest.raises(openai.AuthenticationError):
            await api.with_options(api_key="fk-0").chat.completions.create(model="tiny", messages=TURNS)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError):
            await api.with_options(api_key=poor).chat.completions.create(model="tiny", messages=TURNS)  # type: ignore[arg-type]
    data = await receipt(client, (whole.model_extra or {})["receipt"])
    await serving.cancel()
    await asyncio.wait_for(settled(serving), 60)
    return data


def check_verify_command(folder: Path, data: bytes, bank: bytes) -> None:
    """`fallow verify` needs nothing but the file and the bank's account; without that it is not anchored."""
    path = folder / "one.receipt"
    path.write_bytes(data)

    def verified(*words: str) -> int:
        command = [*COMMAND, "verify", str(path), "--home", str(folder / "nobody"), *words]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert [verified("--bank", f"0x{bank.hex()}"), verified()] == [0, 6]
    assert verified("--bank", f"0x{bytes(20).hex()}") == 3
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verified("--bank", f"0x{bank.hex()}") == 3


async def test_strangers_train_and_serve_and_a_cheat_is_caught(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(3, cheats=1)
        cheat = bytes.fromhex(network.member("provider-3").announced["account"].removeprefix("0x"))
        receipts = await check_training(client, tmp_path, cheat)
        receipts.append(await check_serving(client, network.member("gateway").announced["base_url"], tmp_path))
        after = await books(client)
    bank = bytes.fromhex(network.member("bank").announced["account"].removeprefix("0x"))
    assert after.minted_ucr == after.sum_ucr
    assert after.open_escrows == 0
    for data in receipts:
        found = prove(data, Anchor(bank, "the bank"))
        missing = [check.name for check in found.checks if not check.ok]
        if read_receipt(data).verdict == "rejected":  # it may answer for an hour yet: the bank has found nobody guilty
            assert (found.outcome, missing) == ("incomplete", ["bank"])
        else:
            assert found.outcome == "holds", missing
    check_verify_command(tmp_path, receipts[-1], bank)


async def test_a_job_nobody_can_take_costs_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(0, cheats=0)
        before = await client.wallet()
        with pytest.raises(FallowError) as caught:
            await start_job(client, tmp_path)
        assert caught.value.code == "E1201"
        assert await client.wallet() == before
        assert to_text("account", before.account).startswith("0x")
