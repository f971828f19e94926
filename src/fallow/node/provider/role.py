"""The provider role: one owner task feeds events to the pure machine (`rules/provider/machine.py`), writes what changed
it to the log, makes claims durable, and starts the effects. Whatever is killed at whatever moment, the log brings it
back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from fallow.kinds.registry import kind_named
from fallow.node.folders import remove
from fallow.node.groups import begin
from fallow.node.provider.bank import Teller
from fallow.node.provider.feed import Feeds
from fallow.node.provider.kept import MOST_KEPT, KeptFor, WorkerShelf
from fallow.node.provider.offers import Herald, OwnerWatch, sold_hardware, terms_of, threads_of
from fallow.node.provider.work import Bench, LeaseWork, checks_owner, state_owners
from fallow.node.services import Services
from fallow.ports import Runner, WorkerLimits
from fallow.rules.provider import events as t
from fallow.rules.provider.machine import outstanding, recover, transition
from fallow.rules.provider.state import ProviderState
from fallow.units import GIB
from fallow.wire.codec import recall
from fallow.wire.messages import EXACT

log = structlog.get_logger()

STREAM, SNAPSHOT = "provider", "provider/snapshot"
SNAPSHOT_EVERY = 1_000
QUEUE = 4_096
BATCH = 256
TICK_S = 1.0
SCRATCH_BYTES = GIB
"""What every worker may write for its answers, beside the room that was ordered."""

_encoder = msgspec.msgpack.Encoder()
_SAVED = tuple[int, ProviderState]
_Item = tuple[t.ProviderEvent, "asyncio.Future[list[t.ProviderEffect]]"]


class Provider:
    """The provider role of a node. `tell` may be called from any task of the node's loop. Raises UsageError E1001 for
    an owner's rule that cannot be read."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._sold = sold_hardware(services)
        self._terms = terms_of(services, self._sold)
        self.state = ProviderState(self._terms)
        self.feeds, self.shelf = Feeds(services), WorkerShelf()
        self.ready = asyncio.Event()
        self._teller = Teller(services, self.tell)
        self._owner = OwnerWatch(services, self.worker_pids)
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue(QUEUE)
        self._urgent: list[_Item] = []
        self._works: dict[bytes, LeaseWork] = {}
        self._bench: Bench | None = None
        self._changed = asyncio.Event()
        self._snapshot = 0

    async def run(self) -> None:
        """Recover, then work until cancelled."""
        folder = self.services.home / "work"
        await asyncio.to_thread(_clear, self.services.runner, folder)
        await self._prove()
        lost = await asyncio.to_thread(self._recover)
        await self.feeds.append([e for e in lost if isinstance(e, t.EmitEvent | t.SignClaim)])
        async with asyncio.TaskGroup() as group:
            self._bench = Bench(
                self.services,
                group,
                self.tell,
                self.feeds,
                folder,
                self.threads,
                self._sold.disk_bytes,
                self.shelf,
            )
            group.create_task(self._own(), name="provider owner")
            await self.tell(t.ProviderRestarted(self.services.clock.now_ms(), self._terms))
            self.ready.set()
            log.info("provider ready", leases=len(self.state.leases), numerics=self._sold.numerics)
            herald = Herald(self.services, self.state, self._sold)
            group.create_task(self._tick(), name="provider clock")
            group.create_task(self._teller.keep_stake(), name="provider stake")
            group.create_task(self._teller.appeals.run(), name="provider appeals")
            group.create_task(self._owner.watch(self.tell), name="owner watch")
            group.create_task(herald.publish_regularly(), name="offers")

    async def _prove(self) -> None:
        """Exact work is only offered to those who have shown that they can do it."""
        if not any(kind_named(name).proves_exact for name in self._terms.rates):
            return
        found = await asyncio.to_thread(self.services.machine.exactness, self.threads)
        if found != EXACT:
            log.warning("no exact work will be offered to this machine", reason=found)
        self._sold = msgspec.structs.replace(self._sold, exact=found)
        self._terms = terms_of(self.services, self._sold)

    @property
    def threads(self) -> int:
        """How many CPU threads a task gets."""
        return threads_of(self.services)

    def worker_pids(self) -> set[int]:
        """The processes of our workers."""
        return {pid for work in self._works.values() if (pid := work.pid) is not None} | self.shelf.pids()

    # the owner task -------------------------------------------------------------------------------------------------

    async def tell(self, event: t.ProviderEvent) -> list[t.ProviderEffect]:
        """Let the machine take an event; -> its effects, once the event and the claims in them are on disk."""
        done: asyncio.Future[list[t.ProviderEffect]] = asyncio.get_running_loop().create_future()
        await self._inbox.put((event, done))
        return await done

    def tell_later(self, event: t.ProviderEvent) -> asyncio.Future[list[t.ProviderEffect]]:
        """The same for those who cannot wait: the lanes, a few times a second each. Not bounded by the queue, since a
        claim that is lost is work that is not paid."""
        done: asyncio.Future[list[t.ProviderEffect]] = asyncio.get_running_loop().create_future()
        self._urgent.append((event, done))
        with suppress(asyncio.QueueFull):
            self._inbox.put_nowait((t.ClockTicked(event.at_ms), asyncio.get_running_loop().create_future()))
        return done

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something beside the machine, for as long as the provider lives. Raises UnavailableError E1801 when it
        does not."""
        assert self._bench is not None, "the provider runs"
        return begin(self._bench.group, work, name)

    async def wait_change(self) -> None:
        """Until the machine has taken another event."""
        await self._changed.wait()

    async def _own(self) -> None:
        """The only one who touches the state. Events that wait together share one write to disk. A failing log ends the
        node: the state in memory is then ahead of the disk and must be forgotten."""
        while True:
            items = [await self._inbox.get()]
            while len(items) < BATCH and not self._inbox.empty():
                items.append(self._inbox.get_nowait())
            items = self._urgent + items
            self._urgent = []
            records: list[bytes] = []
            results: list[list[t.ProviderEffect]] = []
            for event, _ in items:
                before = self.state.changes
                results.append(transition(self.state, event))
                if self.state.changes != before:
                    records.append(_encoder.encode(event))
            await self._keep(records, [effect for effects in results for effect in effects])
            for (_, done), effects in zip(items, results, strict=True):
                self.start(effects)
                if not done.done():
                    done.set_result(effects)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _keep(self, records: list[bytes], effects: list[t.ProviderEffect]) -> None:
        """Events to the log, then their claims to the lease streams; a snapshot comes last and takes their place, since
        a restart replays only what came after it."""
        if not records:
            return
        last = await asyncio.to_thread(self.services.log.append, STREAM, records)
        await self.feeds.append([e for e in effects if isinstance(e, t.EmitEvent | t.SignClaim)])
        if last - self._snapshot >= SNAPSHOT_EVERY:
            body = _encoder.encode((last, self.state))
            await asyncio.to_thread(self.services.log.cut, STREAM, last, {SNAPSHOT: body})
            self._snapshot = last

    def _recover(self) -> list[t.ProviderEffect]:
        raw = self.services.log.get(SNAPSHOT)
        if raw is not None:
            self._snapshot, self.state = recall(_SAVED, raw)
        rows = self.services.log.read(STREAM, self._snapshot)
        return recover(self.state, (recall(t.ProviderEvent, body) for _, body in rows))

    async def _tick(self) -> None:
        """Deadlines, what must be under way, and what is over."""
        while True:
            await self.services.clock.sleep(TICK_S)
            now_ms = self.services.clock.now_ms()
            await self.tell(t.ClockTicked(now_ms))
            self.start(outstanding(self.state, now_ms))
            # while its owner is at work, nothing of a stranger's stays on the machine
            await self.shelf.tidy(self.services.clock.monotonic_s(), 0 if self.state.owner else MOST_KEPT)
            for lease in [lease for lease in self._works if lease not in self.state.leases]:
                await self._forget(lease)

    async def _forget(self, lease: bytes) -> None:
        await self._works.pop(lease).stop()
        for owner in (f"lease/{lease.hex()}", *state_owners(lease), checks_owner(lease)):
            await asyncio.to_thread(self.services.blobs.unpin_all, owner)
        self.feeds.forget(lease)

    # effects --------------------------------------------------------------------------------------------------------

    def start(self, effects: list[t.ProviderEffect]) -> None:
        """Begin what an event caused; replies and durable events have been seen to."""
        for effect in effects:
            match effect:
                case t.StartTask():
                    if (work := self.work(effect.lease)) is not None:
                        work.start(effect)
                case t.StopTask(lease, task):
                    if lease in self._works:
                        self._works[lease].stop_task(task)
                case t.StopLease(lease):
                    if lease in self._works:
                        self.spawn(self._works[lease].stop(), "stop lease")
                case t.CheckEscrow() | t.RedeemVoucher() | t.ReleaseEscrow() if self._bench is not None:
                    self._teller.start(self._bench.group, effect)
                case _:
                    continue

    def work(self, lease: bytes) -> LeaseWork | None:
        """The work under a lease that is open; None for any other."""
        entry = self.state.leases.get(lease)
        if entry is None or entry.phase != "open" or self._bench is None:
            return None
        if lease not in self._works:
            share = entry.share
            disk_bytes = SCRATCH_BYTES + share.disk_bytes
            limits = WorkerLimits(share.ram_bytes, self._bench.threads, cards=share.cards, disk_bytes=disk_bytes)
            keeping = KeptFor(entry.document.requester, entry.document.kind, limits)
            quick = kind_named(entry.document.kind).quick
            self._works[lease] = LeaseWork(self._bench, lease, limits, share.disk_bytes, keeping if quick else None)
        return self._works[lease]


def _clear(runner: Runner, folder: Path) -> None:
    """Nothing of a process before survives but what is in the log: its workers are killed and its files removed."""
    folder.mkdir(mode=0o700, exist_ok=True)
    killed = runner.kill_orphans(folder)
    for path in folder.iterdir():
        remove(path)
    if killed:
        log.warning("killed workers that an earlier process left", count=killed)
