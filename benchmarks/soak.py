"""All floods of tests/attacks together against a pool of real processes, with an honest job beside them: bank,
directory, steward, gateway and provider on this machine's loopback; the attackers are one more process that yields to
all others, with keys of its own.

First the honest job alone, for a while, then under the floods: the round trip of a task on a lane, one after the other,
and a batch that is handed in as the floods begin. What must hold: the batch finishes and every answer is right, no
process ends, none holds 512 MiB more than when it was idle, no home is larger than its quota, and the 95th percentile
of a round trip is at most twice that of the quiet time.

    python benchmarks/soak.py [--minutes M] [--quiet-seconds S]

Prints one JSON line per figure; writes `results/soak.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from _record import OURS, ROOT, Figure, Record

sys.path.insert(0, str(ROOT))
if TYPE_CHECKING:
    from tests.attacks.target import Strangers

    from fallow.cli.demo_net import Network
    from fallow.sdk.lanes import AsyncLane
    from fallow.wire.messages import NodeAddress

CLAIM = "ten minutes of all floods together neither stop nor fill nor slow an honest pool"
MIB = 1 << 20
MEMORY_GOAL_MIB, SLOWER_GOAL = 512.0, 2.0
SILENT, SLOW, TASKS = 300, 20, 200
MEMBERS = ("bank", "directory", "steward", "gateway", "provider-1")
PAUSE_S = 0.02


# those who attack -----------------------------------------------------------------------------------------------------


async def half_calls(strangers: Strangers, number: int, victims: list[NodeAddress]) -> None:
    """Most of an 8 MiB message, four times, to everybody."""
    from tests.attacks.target import half_a_call

    for victim in victims:
        connection = await strangers.dial(number, victim)
        streams = await asyncio.gather(*[half_a_call(connection, 7 * MIB) for _ in range(4)])
        for stream in streams:
            if stream is not None:
                stream.abort()


async def nonsense(strangers: Strangers, number: int, victims: list[NodeAddress]) -> None:
    """Bytes that are no message, on many streams."""
    for victim in victims:
        connection = await strangers.dial(number, victim)
        for _ in range(50):
            stream = await asyncio.wait_for(connection.open(), 5)
            await stream.send(os.urandom(500))
            await stream.finish()


async def no_tickets(strangers: Strangers, number: int, victims: list[NodeAddress]) -> None:
    """Accounts without a ticket, key after key, and questions of a bank."""
    from tests.attacks.target import answer_code, identity

    from fallow.wire.ledger import GetBooks, OpenAccount

    rpc = await strangers.rpc(number)
    for one in range(40):
        certificate = identity(number * 1_000 + one).certificate(int(time.time() * 1_000))
        await answer_code(rpc, victims[0], OpenAccount(os.urandom(32), certificate, ""))
        await answer_code(rpc, victims[0], GetBooks())


async def offers(strangers: Strangers, number: int, victims: list[NodeAddress]) -> None:
    """Offers of machines that do not exist, and searches."""
    from tests.attacks.target import answer_code, identity

    from fallow.units import GIB
    from fallow.wire.certificates import sign_offer
    from fallow.wire.messages import Hardware, Offer, PublishOffer, Rate, SearchOffers

    rpc, me, now_ms = await strangers.rpc(number), identity(number), int(time.time() * 1_000)
    hardware = Hardware("invented", 64_000, 512 * GIB, 1 << 45, (), "x86")
    for _ in range(40):
        offer = Offer(
            me.account, rpc.address(), me.certificate(now_ms), hardware, (Rate("echo", 1, 1_000_000),), bytes(20),
            1 << 60, "", now_ms, 600,
        )  # fmt: skip
        await answer_code(rpc, victims[1], PublishOffer(sign_offer(offer, me.node_secret)))
        await answer_code(rpc, victims[1], SearchOffers("echo", limit=200))


async def flood(told: dict[str, Any]) -> None:
    """All of it, again and again, until the process is ended."""
    from tests.attacks.target import Strangers

    from fallow.errors import FallowError
    from fallow.node.config import read_address

    victims = [read_address(address) for address in told["addresses"]]
    counts: dict[str, int] = {}

    async def again(name: str, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(FallowError, OSError, TimeoutError, httpx.HTTPError):
                await act()
            counts[name] = counts.get(name, 0) + 1
            await asyncio.sleep(PAUSE_S)

    async def tell() -> None:
        while True:
            await asyncio.sleep(2)
            print(json.dumps(counts), flush=True)

    url = httpx.URL(told["url"])

    async def silence() -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        await reader.read(1)
        writer.close()

    async def slow_body() -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + bytes(60_000))
        await reader.read()
        writer.close()

    async with Strangers() as strangers, asyncio.TaskGroup() as group:
        for number, attack in enumerate((half_calls, half_calls, nonsense, no_tickets, offers)):
            act = lambda number=number, attack=attack: attack(strangers, number, victims)  # noqa: E731
            group.create_task(again(attack.__name__, act))
        for _ in range(SILENT):
            group.create_task(again("silence", silence))
        for _ in range(SLOW):
            group.create_task(again("slow_body", slow_body))
        group.create_task(tell())


def attacking(told: str) -> subprocess.Popen[str]:
    """The process that does all of it."""
    command = ["nice", "-n", "19", sys.executable, __file__, "--flood", told]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# those who are attacked -----------------------------------------------------------------------------------------------


def status_mib(pid: int, field: str) -> float:
    """A figure of the kernel's about a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


def stored_bytes(home: Path) -> int:
    """What a home takes of the disk."""
    return sum(512 * path.lstat().st_blocks for path in home.rglob("*") if not path.is_symlink())


async def trips_ms(lane: AsyncLane, seconds: float) -> list[float]:
    """Round trips for so long."""
    spent, ends = list[float](), time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= ends:
            return spent
        began = time.perf_counter()
        answer = await lane.run(b"%d" % number)
        spent.append(1e3 * (time.perf_counter() - began))
        assert answer.value == b"%d" % number
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("it counts for ever")


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return sorted(values)[int(0.95 * len(values))]


async def soak(network: Network, record: Record, options: argparse.Namespace) -> dict[str, Any]:
    """Quiet, then not; adds the figures."""
    client = await network.found(providers=1, cheats=0)
    members = {name: network.member(name) for name in MEMBERS}
    pids = {name: member.announced["pid"] for name, member in members.items()}
    job = await client.open_lane_job("echo", budget="100", workers=1, verify="none", name="honest")
    async with client.lane(job) as lane:
        await asyncio.wait_for(lane.run(b"first"), 60)
        quiet = await trips_ms(lane, options.quiet_seconds)
        idle = {name: status_mib(pid, "VmRSS") for name, pid in pids.items()}
        for pid in pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        addresses = [members[name].announced["address"] for name in MEMBERS if name != "gateway"]
        told = json.dumps({"addresses": addresses, "url": members["gateway"].announced["base_url"]})
        with attacking(told) as attackers:
            try:
                batch = await client.run("echo", [b"%d" % n for n in range(TASKS)], budget="10", verify="none")
                loud = await trips_ms(lane, 60 * options.minutes)
                done = await asyncio.wait_for(batch.wait(), 120)
            finally:
                attackers.kill()
            said = [line for line in (attackers.communicate()[0] or "").splitlines() if line.endswith("}")]
    await job.cancel()
    ended = [name for name, member in members.items() if member.process.poll() is not None]
    assert not ended, f"ended: {ended}"
    for name, pid in pids.items():
        above = status_mib(pid, "VmHWM") - idle[name]
        record.add(Figure(OURS, f"{name}: memory above idle, at most", "MiB", [above], MEMORY_GOAL_MIB, less=True))
    for name, member in members.items():
        record.add(Figure(OURS, f"{name}: disk", "MiB", [stored_bytes(member.home) / MIB]))
    record.add(Figure(OURS, "round trip alone, p95", "ms", [p95(quiet)]))
    record.add(Figure(OURS, "round trip under all floods, p95", "ms", [p95(loud)]))
    slower = p95(loud) / p95(quiet)
    record.add(Figure(OURS, "p95 under all floods, times that of the quiet time", "", [slower], SLOWER_GOAL, less=True))
    return {"attacks": json.loads(said[-1]) if said else {}, "trips": len(loud), "batch": done.phase, "idle_mib": idle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--quiet-seconds", type=float, default=60)
    parser.add_argument("--flood", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        asyncio.run(flood(json.loads(options.flood)))
        return
    from fallow.cli.demo_net import Network

    record = Record(__file__, CLAIM)
    with tempfile.TemporaryDirectory(prefix="fallow-soak-") as folder, Network(Path(folder)) as network:
        raw = asyncio.run(soak(network, record, options))
    record.write(raw)


if __name__ == "__main__":
    main()
