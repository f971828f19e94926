"""A steward on the network in memory, with real logs, books, providers and worker processes, that can be killed and
started again; and rogues, which answer as a test tells them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.node.provider.provider_net import CONFIG, Pool, Seller, open_pool

from fallow.node import api
from fallow.node.api_keys import ApiKeys
from fallow.node.config import Config
from fallow.node.directory import search_signed
from fallow.node.lanes.session import serve_lanes
from fallow.node.local_socket import local_socket
from fallow.node.router import Router
from fallow.node.services import Services
from fallow.node.steward.receipts import Receipts
from fallow.node.steward.role import Steward
from fallow.rules.steward.events import StewardEvent, Timing
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.wire.local import BatchJob, JobSpec, JobView, LaneJob

E = TypeVar("E", bound=StewardEvent)
QUICK = Timing(patience=20_000, search_every=300, quote_within=5_000, lost_after=4_000, audit_within=10_000)


def batch(*params: bytes, verify: str = "none", workers: int = 1, budget: int = 5_000_000, units: int = 1) -> JobSpec:
    return JobSpec(BatchJob("echo", params, (), units), budget, 0, workers, verify=verify)


def lane_job(replicas: int = 1, verify: str = "none", budget: int = 5_000_000, timeout_s: int = 600) -> JobSpec:
    return JobSpec(LaneJob("echo", replicas), budget, 0, 1, verify=verify, timeout_s=timeout_s)


@dataclass
class Desk:
    """Sam's node: a steward with its local socket."""

    pool: Pool
    name: str = "sam"
    services: Services = field(init=False)
    steward: Steward = field(init=False)
    _task: asyncio.Task[None] = field(init=False)

    async def start(self) -> Desk:
        self.services = await self.pool.services(self.name, Router())
        self.steward = Steward(self.services, QUICK)
        ready = asyncio.Event()
        self._task = self.pool.spawn(self._run(ready))
        await ready.wait()
        return self

    async def _run(self, ready: asyncio.Event) -> None:
        owner, steward = Router(), self.steward

        def known(job: bytes) -> None:
            steward.view(job)

        up = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(steward.run(up))
            await up.wait()
            api.serve_jobs(owner, self.services, steward)
            api.serve_receipts(owner, steward, Receipts(self.services, steward.records, steward.state))
            api.serve_wallet(owner, self.services)
            api.serve_offers(owner, self.services)
            keys = ApiKeys(self.services.log, self.services.clock, self.services.entropy)
            serve_lanes(owner, steward.lanes, keys, known)
            async with local_socket(self.services.home, owner):
                ready.set()
                await asyncio.Event().wait()

    @property
    def link(self) -> NodeSocket:
        return NodeSocket(socket_path(self.services.home))

    async def kill(self) -> None:
        """As if the process had ended here: connections break and nothing more is written."""
        self.services.log.close()
        self.pool.network.crash(self.services.transport)  # type: ignore[arg-type]
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.services.rpc.close()

    async def view(self, job: bytes, until: Callable[[JobView], bool], within_s: float = 40) -> JobView:
        """The job's view once `until` holds."""
        async with asyncio.timeout(within_s):
            while not until(view := self.steward.view(job)):
                await asyncio.sleep(0.05)
        return view

    async def settled(self, job: bytes) -> JobView:
        """The view of a job that is over, all its leases closed and all its records kept."""
        await self.view(job, closed)
        async with self.steward.deciding:
            return self.steward.view(job)


def closed(view: JobView) -> bool:
    """Whether nothing is left of a job but its records."""
    over = view.phase in ("done", "failed", "cancelled")
    return over and all(lease.state in ("closed", "banned") for lease in view.leases)


@asynccontextmanager
async def office(folder: Path, sellers: int = 1, config: Config = CONFIG) -> AsyncGenerator[tuple[Desk, list[Seller]]]:
    """A pool with a steward and some providers, all on offer."""
    async with open_pool(folder) as pool:
        found = [await Seller(pool, f"pat{number}", config).start() for number in range(sellers)]
        desk = await Desk(pool).start()
        s = desk.services
        async with asyncio.timeout(20):
            while len(await search_signed(s.rpc, s.directories, "", s.clock.now_ms())) < sellers:
                await asyncio.sleep(0.05)
        yield desk, found


@dataclass
class Rogue:
    """A node with an account that answers what its router says."""

    router: Router
    services: Services


async def rogue(pool: Pool, name: str = "rita") -> Rogue:
    router = Router()
    return Rogue(router, await pool.services(name, router))


class Told:
    """Collects what a brain is told."""

    def __init__(self) -> None:
        self.events: list[StewardEvent] = []
        self._changed = asyncio.Event()

    async def __call__(self, event: StewardEvent) -> None:
        self.events.append(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, kind: type[E], count: int = 1) -> E:
        """The `count`th event of a kind, once it is there."""
        async with asyncio.timeout(20):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
                await self._changed.wait()
        return found[count - 1]
