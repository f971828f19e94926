"""Kill any one process of a network, at any moment of a job, again and again: nothing may be lost or paid twice.

    python -m tests.e2e.kill_any --times 40 --seed 1

A bank, a directory, a steward, a gateway and three providers run as processes of their own. For each moment a small
model is trained with checks on; at a random time one random process gets SIGKILL and is started again after a random
pause. Then the job must finish, the books must balance, and every provider must have been paid exactly what its final
units cost, once. Prints a JSON line per moment; exits with 1 after a failure, with the seed to see it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.workloads.tiny import TEXT, make_model

from fallow.cli.demo_net import Member, Network
from fallow.errors import FallowError
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.units import cost_ucr
from fallow.wire.local import JobView, PoolBooks, SeeBooks
from fallow.wire.tasks import Recipe

RECIPE = Recipe(
    method="lora", lora_rank=4, sequence_tokens=32, batch_sequences=2, inner_steps=4, rounds=2, learning_rate="0.01",
    warmup_steps=1, holdout_sequences=4,
)  # fmt: skip
JOB_S = 600.0
SETTLE_S = 60.0
LATEST_KILL_S = 8.0
PROVIDERS = 3
SETTLED = ("closed", "banned")


class BrokenPromise(Exception):
    """A job that did not finish, or money that does not add up."""


async def start_job(client: AsyncFallow, folder: Path) -> AsyncJob:
    """A training job that is checked, so that all of the machinery takes part."""
    return await client.train(
        folder / "model", folder / "data.txt", RECIPE, "fp32",
        budget="5", workers=2, verify="audit:probation=1,rate=0.2,quorum=2", timeout_s=int(JOB_S),
    )  # fmt: skip


async def survive(
    network: Network, client: AsyncFallow, folder: Path, victim: Member, after_s: float, down_s: float
) -> JobView:
    """One moment: start a job, kill `victim` after `after_s`, start it again after `down_s`; -> the settled job.
    Raises BrokenPromise."""
    before = await books(client)
    await all_offered(client)
    job = await start_job(client, folder)
    await asyncio.sleep(after_s)
    network.kill(victim)
    await asyncio.sleep(down_s)
    await network.restart(victim)
    try:
        view = await asyncio.wait_for(settled(job), JOB_S + SETTLE_S)
    except TimeoutError:
        view = await job.view()
        raise BrokenPromise(f"not finished: {view.phase}, leases {[lease.state for lease in view.leases]}") from None
    if view.phase != "done":
        raise BrokenPromise(f"the job ended {view.phase}: {view.failure_code} {view.failure}")
    for lease in view.leases:
        owed = cost_ucr(lease.units_final, lease.price_ucr)
        if lease.paid_ucr != owed:
            raise BrokenPromise(f"a provider was paid {lease.paid_ucr} ucr for work worth {owed} ucr")
    after = await books(client)
    if after.minted_ucr != after.sum_ucr or after.minted_ucr != before.minted_ucr:
        raise BrokenPromise(f"money appeared or vanished: {before} -> {after}")
    return view


async def settled(job: AsyncJob) -> JobView:
    """Wait until the job has ended and every lease of its is closed."""
    while True:
        try:
            view = await job.view()
            if view.phase in ("done", "failed", "cancelled") and all(lease.state in SETTLED for lease in view.leases):
                return view
        except FallowError:
            pass  # the steward is being restarted
        await asyncio.sleep(0.2)


async def all_offered(client: AsyncFallow) -> None:
    """Wait until everybody is on offer: a directory that was just started again knows of nobody for some seconds."""
    for _ in range(150):
        if len(await client.offers()) >= PROVIDERS:
            return
        await asyncio.sleep(0.2)
    raise BrokenPromise("the providers are not on offer again")


async def books(client: AsyncFallow) -> PoolBooks:
    """The pool's books, as soon as the bank answers."""
    for _ in range(100):
        try:
            return await client.call(SeeBooks(), PoolBooks)
        except FallowError:
            await asyncio.sleep(0.2)
    raise BrokenPromise("the bank does not answer")


def prepare(folder: Path) -> None:
    """The model and the text."""
    make_model(folder / "model")
    (folder / "data.txt").write_text(TEXT * 2, "utf-8")


async def run(times: int, seed: int, victims: list[str]) -> int:
    """-> how many moments broke a promise."""
    chance = random.Random(seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="fallow-kill-") as name:
        folder = Path(name)
        prepare(folder)
        with Network(folder / "net") as network:
            client = await network.found(PROVIDERS, cheats=0)
            for number in range(times):
                victim = network.member(chance.choice(victims))
                after_s, down_s = chance.uniform(0, LATEST_KILL_S), chance.uniform(0, 2)
                found: dict[str, Any] = {
                    "moment": number, "seed": seed, "victim": victim.name, "after_s": round(after_s, 2),
                    "down_s": round(down_s, 2),
                }  # fmt: skip
                try:
                    view = await survive(network, client, folder, victim, after_s, down_s)
                    found |= {"ok": True, "paid_ucr": sum(lease.paid_ucr for lease in view.leases)}
                except (BrokenPromise, FallowError) as error:
                    failures += 1
                    found |= {"ok": False, "why": str(error)}
                print(json.dumps(found), flush=True)
                if not found["ok"]:
                    break
    return failures


VICTIMS = ["bank", "directory", "steward", "gateway", *(f"provider-{n}" for n in range(1, PROVIDERS + 1))]


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victims", default=",".join(VICTIMS))
    args = parser.parse_args()
    failures = asyncio.run(run(args.times, args.seed, args.victims.split(",")))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
