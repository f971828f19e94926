"""No-op tasks through a lease, with everything on that a paying user gets: a bank, a directory, a steward, a gateway
and a provider are processes of their own; the tasks are metered, claimed under signed Merkle roots and paid from
escrow; every answer is on the steward's disk soon. Beside Ray: tasks, and calls of one actor.

Two figures each: the round trip of a task when the next is sent only after the answer, and the rate of 5,000 tasks that
are all submitted before the first result is awaited. They take turns: blocks of round trips, then batches, so that
whatever else the machine does hits all of them. A warm-up is not counted.

    FALLOW_BENCH_RAY_PYTHON=.../bin/python python benchmarks/tasks.py [--singles N] [--batch N] [--rounds N]

Without a Python that has Ray it is left out. Prints one JSON line per figure; writes `benchmarks/results/tasks.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _record import OURS, Figure, Player, Record, peer_python

if TYPE_CHECKING:
    from fallow.sdk.client import AsyncFallow
    from fallow.sdk.jobs import AsyncJob
    from fallow.sdk.lanes import AsyncLane

CLAIM = "no-op tasks through a lease, metered, claimed and paid, are faster than Ray's tasks"
BLOCK = 100
WARM_UP = 200
TASKS, CALLS = "ray tasks", "ray actor calls"
SETTLE_S = 60.0


# Ray, in its own Python -----------------------------------------------------------------------------------------------


def play_ray() -> None:
    """Start Ray, then for every line `[what, "singles" | "batch", n]` do it and print the seconds."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import ray

    folder = tempfile.mkdtemp(prefix="fallow-bench-ray-")
    ray.init(
        num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
        _node_ip_address="127.0.0.1", _temp_dir=folder, object_store_memory=256 << 20,
    )  # fmt: skip

    @ray.remote
    def noop(x: int) -> int:
        return x

    @ray.remote
    class Echo:
        def call(self, x: int) -> int:
            return x

    actor: Any = Echo.remote()
    calls: dict[str, Any] = {TASKS: noop.remote, CALLS: actor.call.remote}
    ray.get([call(0) for call in calls.values()])
    print(json.dumps({"version": ray.__version__}), flush=True)
    try:
        for line in sys.stdin:
            what, how, count = json.loads(line)
            print(json.dumps(ray_round(ray, calls[what], how, count)), flush=True)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def ray_round(ray: Any, call: Any, how: str, count: int) -> list[float]:
    """Seconds: of each call, or of all together."""
    if how == "batch":
        began = time.perf_counter()
        found = ray.get([call(number) for number in range(count)])
        spent = [time.perf_counter() - began]
        assert found == list(range(count))
        return spent
    spent = []
    for number in range(count):
        began = time.perf_counter()
        ray.get(call(number))
        spent.append(time.perf_counter() - began)
    return spent


# Fallow ---------------------------------------------------------------------------------------------------------------


async def fallow_round(lane: AsyncLane, how: str, count: int) -> list[float]:
    """The same through a lane."""
    params = [str(number).encode() for number in range(count)]
    if how == "batch":
        began = time.perf_counter()
        answers = await lane.map(params)
        spent = [time.perf_counter() - began]
        assert [answer.value for answer in answers] == params
        return spent
    spent = []
    for param in params:
        began = time.perf_counter()
        await lane.run(param)
        spent.append(time.perf_counter() - began)
    return spent


async def open_lane(client: AsyncFallow, lane: AsyncLane) -> None:
    """Wait until the lane answers: a lease has to be made and a worker started."""
    answer = await asyncio.wait_for(lane.run(b"first"), SETTLE_S)
    assert answer.value == b"first"


async def settle(client: AsyncFallow, job: AsyncJob, sent: int) -> dict[str, Any]:
    """End the job; every answer must have been claimed and paid, neither more nor less."""
    from fallow.units import cost_ucr
    from fallow.wire.local import PoolBooks, SeeBooks

    view = await job.view()
    for _ in range(int(SETTLE_S / 0.2)):
        view = await job.view()
        if sum(lease.units_final for lease in view.leases) >= sent:
            break
        await asyncio.sleep(0.2)
    await job.cancel()
    while any(lease.state != "closed" for lease in view.leases):
        await asyncio.sleep(0.2)
        view = await job.view()
    books = await client.call(SeeBooks(), PoolBooks)
    units = sum(lease.units_final for lease in view.leases)
    paid = sum(lease.paid_ucr for lease in view.leases)
    assert units == sent, f"{sent} answers, {units} units claimed"
    assert paid == sum(cost_ucr(lease.units_final, lease.price_ucr) for lease in view.leases), "wrongly paid"
    assert books.minted_ucr == books.sum_ucr, "money appeared or vanished"
    return {"answers": sent, "units_claimed": units, "paid_ucr": paid, "books_balance": True}


# the race -------------------------------------------------------------------------------------------------------------

Round = Callable[[str, int], Awaitable[list[float]]]


def ray_turns(ray: Player, what: str) -> Round:
    """Rounds of Ray's."""

    async def turn(how: str, count: int) -> list[float]:
        return await asyncio.to_thread(ray.ask, [what, how, count])

    return turn


class Race:
    """Everybody's rounds, in turns."""

    def __init__(self, rounds: dict[str, Round]) -> None:
        self._rounds = rounds
        self.trips_ms: dict[str, list[float]] = {who: [] for who in rounds}
        self.rates: dict[str, list[float]] = {who: [] for who in rounds}
        self.sent = 0

    async def _turn(self, who: str, how: str, count: int) -> list[float]:
        self.sent += count if who == OURS else 0
        return await self._rounds[who](how, count)

    async def run(self, singles: int, batch: int, rounds: int) -> None:
        """The whole race."""
        for who in self._rounds:
            await self._turn(who, "singles", WARM_UP)
        for _ in range(singles // BLOCK):
            for who in self._rounds:
                self.trips_ms[who] += [1e3 * spent for spent in await self._turn(who, "singles", BLOCK)]
        for number in range(rounds + 1):
            for who in self._rounds:
                (spent,) = await self._turn(who, "batch", batch)
                if number:
                    self.rates[who].append(batch / spent)


async def measure(folder: Path, ray: Player | None, options: argparse.Namespace) -> tuple[Race, dict[str, Any]]:
    """Start the network, race, settle."""
    from fallow.cli.demo_net import Network

    with Network(folder, boxed=not options.unboxed) as network:
        client = await network.found(providers=1, cheats=0)
        job = await client.open_lane_job("echo", budget="100", workers=1, verify=options.verify, name="bench")
        async with client.lane(job) as lane:
            await open_lane(client, lane)

            async def ours(how: str, count: int) -> list[float]:
                return await fallow_round(lane, how, count)

            rounds: dict[str, Round] = {OURS: ours}
            if ray is not None:
                ask = ray.ask
                for what in (TASKS, CALLS):
                    rounds[what] = lambda how, count, what=what: asyncio.to_thread(ask, [what, how, count])
            race = Race(rounds)
            await race.run(options.singles, options.batch, options.rounds)
        return race, await settle(client, job, race.sent + 1)


def report(record: Record, race: Race, batch: int, versions: dict[str, str]) -> None:
    """Ours must be ahead of Ray's tasks on both, and of its actor calls' rate, of the same run."""
    goals: dict[tuple[str, str], float] = {}
    peers: list[Figure] = []
    for who in (TASKS, CALLS):
        if who in race.rates:
            trips, rates = race.trips_ms[who], race.rates[who]
            version = versions["ray"]
            peers += [
                trip := Figure(who, "round trip, p50", "ms", trips, version=version),
                Figure(who, "round trip, p99", "ms", trips, version=version, pick="p99"),
                rate := Figure(who, f"{batch} at once", "1/s", rates, version=version),
            ]
            goals[who, "trip"], goals[who, "rate"] = trip.figure, rate.figure
    trips, rates, version = race.trips_ms[OURS], race.rates[OURS], versions[OURS]
    goal = max((value for (_, kind), value in goals.items() if kind == "rate"), default=None)
    record.add(Figure(OURS, "round trip, p50", "ms", trips, goals.get((TASKS, "trip")), less=True, version=version))
    record.add(Figure(OURS, "round trip, p99", "ms", trips, version=version, pick="p99"))
    record.add(Figure(OURS, f"{batch} at once", "1/s", rates, goal, version=version))
    for figure in peers:
        record.add(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unboxed", action="store_true", help="the worker lives in no box")
    parser.add_argument("--singles", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify", default="none", help="how the lane's answers are checked; there is one provider")
    options = parser.parse_args()
    record = Record(__file__, CLAIM)
    import importlib.metadata

    versions = {OURS: importlib.metadata.version(OURS)}
    found = peer_python("FALLOW_BENCH_RAY_PYTHON", "ray")
    ray: Player | None = None
    folder = Path(tempfile.mkdtemp(prefix="fallow-bench-tasks-"))
    try:
        if found is None:
            record.leave_out("Ray is not installed in this Python nor named by FALLOW_BENCH_RAY_PYTHON: left out")
        else:
            python, more = found
            versions |= more
            ray = Player([python, __file__, "--play-ray"])
            ray.hear()
        race, settled = asyncio.run(measure(folder, ray, options))
    finally:
        if ray is not None:
            ray.stop()
        shutil.rmtree(folder, ignore_errors=True)
    report(record, race, options.batch, versions)
    record.write({"settled": settled})


if __name__ == "__main__":
    if sys.argv[1:] == ["--play-ray"]:
        play_ray()
    else:
        main()
