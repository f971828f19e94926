"""One machine of a simulated pool: the node's own code over fake doors, a disk that outlives it, and death at any
write, any message, or any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, cast

from fallow.errors import fail
from fallow.node.blobs import Fetcher
from fallow.node.config import Config
from fallow.node.pool import Pool
from fallow.node.roles import Roles, take_up
from fallow.node.router import Caller, Router, Streaming, Unary
from fallow.node.rpc import Rpc
from fallow.node.services import Services
from fallow.node.steward.role import Steward
from fallow.ports import Ledger
from fallow.rules.idle import Reading
from fallow.rules.provider.state import LeaseEntry
from fallow.sim.chain import content
from fallow.sim.cheats import MISCHIEF_S, Ways
from fallow.sim.disk import Disk, SimBlobs, SimEventLog
from fallow.sim.runner import Craft, SimRunner, unit_seconds
from fallow.sim.world import World
from fallow.units import GIB
from fallow.wire.documents import Document, Signed
from fallow.wire.eip712 import sign
from fallow.wire.messages import (
    EXACT,
    Claimed,
    Hardware,
    LeaseEvent,
    Message,
    PayVoucher,
)
from fallow.wire.worker import Preload, RunTask
from fallow.workloads.lane import QuickLane, SendAnswers
from fallow.workloads.task import TaskResult, TaskRun

LIFE: ContextVar[tuple[Host, int]] = ContextVar("LIFE")
"""Whose code is running, and in which of its lives."""

GENESIS_MS = 1_700_000_000_000
"""When every simulated world begins."""
QUOTA_BYTES = 50 * GIB


class HostClock:
    """`ports.Clock` over the loop's time; `skew_ms` says how far this machine's clock is ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self.skew_ms = loop, 0

    def now_ms(self) -> int:
        return GENESIS_MS + int(self._loop.time() * 1_000) + self.skew_ms

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Dice:
    """`ports.Entropy` from a seed."""

    def __init__(self, seed: object) -> None:
        self._rng = random.Random(repr(seed))

    def draw(self, size_bytes: int) -> bytes:
        return self._rng.randbytes(size_bytes)


class FakeMachine:
    """`ports.Machine`: a computer of a given sort and speed; its owner is there while `busy`."""

    def __init__(self, numerics: str, units_per_s: int) -> None:
        self.busy = False
        self._numerics, self._units_per_s = numerics, units_per_s

    def measure(self, folder: Path, threads: int) -> Hardware:
        return Hardware("sim", 4_000, 64 * GIB, 1 << 40, (), self._numerics)

    def can_do(self, kind: str) -> bool:
        return True

    def speeds(self, folder: Path, threads: int) -> dict[str, int]:
        return dict.fromkeys(("echo", "train"), self._units_per_s)

    def exactness(self, threads: int) -> str:
        return EXACT

    def reading(self, ours: set[int]) -> Reading:
        return Reading(0.0 if self.busy else 9_999.0, 0.0, 0.0, 0, 0)


def craft(ways: Ways, units_per_s: int) -> Craft:
    """What the workers of a provider do."""

    def run(work: TaskRun) -> TaskResult:
        output, files = ways.output(work.task), dict[str, Path]()
        for number, part in enumerate(output.parts):
            files[part.name] = work.outdir / f"{number}"
            files[part.name].write_bytes(content(part))
        return TaskResult(output.value, files)

    def seconds(order: RunTask) -> float:
        return ways.seconds(order.task, unit_seconds(order) * 1_000 / units_per_s)

    def lane(_order: Preload, tell: SendAnswers, _log: Callable[[str], None]) -> QuickLane:
        return QuickLane(lambda task: ways.lane(task.number, task.params, task.seed), tell, ways.lane_units)

    return Craft(lambda _kind: run, lane, seconds)


class HostRouter(Router):
    """What peers are answered: by the node, unless its ways are others. The town hears of all that is asked."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def handlers(self, kind: type[Message]) -> tuple[Unary[Any] | None, Streaming[Any] | None]:
        unary, streaming = super().handlers(kind)
        return unary and partial(self._answer, unary), streaming and partial(self._stream, streaming)

    async def _answer(self, handler: Unary[Any], caller: Caller, message: Message) -> Message:
        host = self._host
        await self._hear(message)
        told = host.ways.instead.get(type(message))
        host.town.referee.asked(message)
        reply = await handler(caller, message) if told is None else told
        if host.ways.honest and isinstance(message, PayVoucher):
            host.town.referee.accepted(host.identity.node, message.voucher)
        return reply

    async def _stream(
        self, handler: Streaming[Any], caller: Caller, message: Message, inputs: AsyncIterator[Message]
    ) -> AsyncIterator[Any]:
        host = self._host
        await self._hear(message)
        async with aclosing(cast(Any, handler(caller, message, inputs))) as items:
            async for item in items:
                for told in host.ways.events(host, item) if isinstance(item, LeaseEvent) else (item,):
                    if isinstance(told, LeaseEvent):
                        host.town.telling(host.identity.account, told, honest=host.ways.honest)
                    yield told

    async def _hear(self, message: Message) -> None:
        if isinstance(message, self._host.ways.ignored):
            await asyncio.Event().wait()


class Host:
    """One machine. `start` and `kill` begin and end a life of its node; `doom` orders a death for one of the next
    points, which are before and after every write and every message."""

    def __init__(self, town: World, name: str, roles: str, config: Config, ways: Ways | None = None) -> None:
        self.town, self.name, self.names = town, name, frozenset({roles})
        self.config, self.ways = config, ways or Ways()
        self.identity = town.identity(name)
        self.clock = HostClock(town.loop)
        self.disk = Disk(town.folder / f"disk of {name}")
        self.disk.written = self._written
        self.disk.on_write = self.point
        self.machine = FakeMachine("x86", 1_000)
        self.units_per_s = 1_000
        self.chores: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.ledger: Callable[[], Ledger] | None = None
        self.up, self.deaths, self.ready = False, 0, asyncio.Event()
        self.roles: Roles | None = None
        self._doomed_in, self._rest_s = 0, 1.0
        self._entropy = Dice((town.seed, name))
        self._services: Services | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def services(self) -> Services:
        """Of this life."""
        assert self._services is not None, "it has never been up"
        return self._services

    @property
    def leases(self) -> dict[bytes, LeaseEntry]:
        """What the provider knows now; nothing before it is up."""
        provider = self.roles.provider if self.roles is not None else None
        return provider.state.leases if provider is not None else {}

    @property
    def stewarding(self) -> Steward | None:
        """The steward's brain, while it is up."""
        return self.roles.steward if self.roles is not None and self.up else None

    @property
    def shown(self) -> list[Claimed]:
        """The claims that anybody in the world has made."""
        return self.town.shown

    def sign_unseen(self, document: Document) -> Signed:
        """Sign what one has no right to say."""
        return sign(document, self.identity.account_secret, self.town.bank_account)

    # lives ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life."""
        if not self.up:
            self.up = True
            self.town.note(f"{self.name} starts")
            self._task = self.town.loop.create_task(self._live(self.deaths), name=f"life of {self.name}")

    def kill(self, rest_s: float) -> None:
        """Die now, as by `kill -9`; start again after `rest_s`."""
        if not self.up:
            return
        self.up, self._doomed_in = False, 0
        self.deaths += 1
        self.town.note(f"{self.name} dies")
        self.disk.crash()
        if self._services is not None:
            self.town.network.die(cast(Any, self._services.transport))
        if self._task is not None:
            self.town.loop.call_soon(self._task.cancel)
        self.town.loop.call_later(rest_s, self.start)

    def doom(self, points: int, rest_s: float) -> None:
        """Die at the `points`-th point from now."""
        self._doomed_in, self._rest_s = max(1, points), rest_s

    def point(self) -> None:
        """A moment at which the machine may die. Raises UnavailableError E1801 when it does."""
        if self._doomed_in:
            self._doomed_in -= 1
            if not self._doomed_in:
                self.kill(self._rest_s)
                raise fail("E1801", "The machine died.")

    def calm(self) -> None:
        """No more death, no more trouble."""
        self._doomed_in, self.disk.full, self.machine.busy = 0, False, False

    def _written(self, events: Any, cells: Any) -> None:
        if "steward" in self.names:
            self.town.referee.written(events, cells)
        self.point()

    def lives(self, life: int) -> bool:
        """Whether this is the life that it has now."""
        return self.up and life == self.deaths

    async def _live(self, life: int) -> None:
        LIFE.set((self, life))
        try:
            await self._work()
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever ends a node is a finding, unless it was to die
            if self.lives(life):
                self.town.fell_over(self.name, error)

    async def _work(self) -> None:
        town, door = self.town, HostRouter(self)
        transport = town.network.listen(self.identity.node, self.name)
        async with Rpc(transport, door) as rpc:
            store = SimBlobs(QUOTA_BYTES, self.disk)
            home = town.folder / f"{self.name}-{self.deaths}"
            home.mkdir(parents=True, exist_ok=True)
            self._services = Services(
                home, self.config, self.identity, self.clock, self._entropy, transport, rpc,
                SimEventLog(self.disk), store, Fetcher(rpc, store),
                SimRunner(craft(self.ways, self.units_per_s)), self.machine,
                None if "bank" in self.names else town.invitation,
            )  # fmt: skip
            self.roles = Roles(self.names, town.timing, door, Router())
            async with asyncio.TaskGroup() as group:
                pool = Pool(self._services, town.directories, lambda _policy: cast(Any, self.ledger)())
                await take_up(self.roles, self._services, pool, group)
                if "bank" in self.names:
                    town.invite(self._services.ticket)
                for chore in self.chores:
                    group.create_task(chore(), name=f"chore of {self.name}")
                if not self.ways.honest:
                    group.create_task(self._mischief(), name="mischief")
                town.note(f"{self.name} is up")
                self.ready.set()
                await asyncio.Event().wait()

    async def _mischief(self) -> None:
        while True:
            await asyncio.sleep(MISCHIEF_S)
            await self.ways.mischief(self)

    async def break_workers(self, chance: float) -> None:
        """A chore: now and then, a worker dies."""
        rng = random.Random(f"breaks {self.town.seed} {self.name}")
        while True:
            await asyncio.sleep(2.0)
            for _, worker in list(cast(SimRunner, self.services.runner).living.values()):
                if rng.random() < chance:
                    worker.end("killed by signal 11")
