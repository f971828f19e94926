"""Opening lanes: at most one per lease, with a worker that has loaded what the lane's tasks need. A lane that comes
back with the same inputs finds them loaded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.errors import fail
from fallow.node.folders import stored_bytes
from fallow.node.provider.lane import LaneRoom, ServedLane
from fallow.node.provider.work import LeaseWork
from fallow.ports import Worker
from fallow.rules.provider.events import LaneAnswered
from fallow.rules.provider.money import allowance_units
from fallow.wire.claims import setting_hash
from fallow.wire.messages import OpenLane
from fallow.wire.tasks import LaneSetting
from fallow.wire.worker import FromWorker, Preload, WorkerFailed, WorkerReady

if TYPE_CHECKING:
    from fallow.node.provider.role import Provider

PRELOAD_S = 600.0
LOAD_BYTES_PER_S = 10_000_000
"""The least speed at which a worker may read its model from disk before it counts as stuck."""
PARALLEL_STREAMS = 4
MAX_LEAVES = 200_000
"""Of a lease's last claims: more than answers can be on their way when a lane breaks."""


@dataclass
class _Loaded:
    """What a worker has loaded, and the lane that uses it."""

    worker: Worker
    key: tuple[object, ...]
    ready: WorkerReady
    lane: ServedLane


@dataclass
class _Leaves:
    """The leaves of a lease's last claims, by the first lane number of each."""

    claims: OrderedDict[int, tuple[bytes, ...]] = field(default_factory=OrderedDict[int, tuple[bytes, ...]])
    count: int = 0

    def keep(self, first: int, leaves: tuple[bytes, ...]) -> None:
        self.claims[first] = leaves
        self.count += len(leaves)
        while self.count > MAX_LEAVES and len(self.claims) > 1:
            self.count -= len(self.claims.popitem(last=False)[1])


@dataclass
class ProviderLanes:
    """All lanes of a provider."""

    _loaded: dict[bytes, _Loaded] = field(default_factory=dict[bytes, _Loaded])
    _leaves: dict[bytes, _Leaves] = field(default_factory=dict[bytes, "_Leaves"])
    _room: LaneRoom = field(default_factory=LaneRoom)

    async def open(self, request: OpenLane, work: LeaseWork, provider: Provider) -> tuple[ServedLane, WorkerReady]:
        """A lane over the lease's worker, ready to take tasks. Raises what fetching the inputs and starting the worker
        raise, and the failure that the worker reports when it cannot load them."""
        before = self._loaded.get(request.lease)
        if before is not None:
            before.lane.end("another lane took its place")
            before.lane.close()
        entry = provider.state.leases[request.lease]
        kind, key = entry.document.kind, (request.inputs, request.context_tokens, request.exact)
        paths = await work.inputs(request.inputs, request.sources)
        if before is not None and before.key != key:
            before.worker.kill("another model is wanted")
            await before.worker.ended.wait()
        worker = await work.worker()
        lane = self._lane(request, worker, provider)
        if before is not None and before.worker is worker and before.key == key:
            work.on_lane, work.on_gone, ready = lane.on_worker, lane.end, before.ready
        else:
            order = Preload(
                kind, paths, provider.threads, request.context_tokens, PARALLEL_STREAMS, exact=request.exact
            )
            size_bytes = await asyncio.to_thread(lambda: sum(stored_bytes(Path(path)) for path in paths.values()))
            ready = await self._load(order, work, worker, lane, PRELOAD_S + size_bytes / LOAD_BYTES_PER_S)
        self._loaded[request.lease] = _Loaded(worker, key, ready, lane)
        return lane, ready

    async def _load(
        self, order: Preload, work: LeaseWork, worker: Worker, lane: ServedLane, patience_s: float
    ) -> WorkerReady:
        answered: asyncio.Future[WorkerReady | WorkerFailed | str] = asyncio.get_running_loop().create_future()

        def on_lane(message: FromWorker) -> None:
            if isinstance(message, WorkerReady | WorkerFailed):
                if not answered.done():
                    answered.set_result(message)
            else:
                lane.on_worker(message)

        def on_gone(why: str) -> None:
            if not answered.done():
                answered.set_result(why)
            lane.end(why)

        work.on_lane, work.on_gone = on_lane, on_gone
        worker.send(order)
        try:
            said = await asyncio.wait_for(answered, patience_s)
        except TimeoutError:
            worker.kill("it did not load its model in time")
            raise fail("E1704", "The worker did not load its model in time.") from None
        if isinstance(said, WorkerReady):
            return said
        if isinstance(said, WorkerFailed):
            raise fail(said.code, said.what)
        raise fail("E1704", f"The worker died: {said}.")

    def _lane(self, request: OpenLane, worker: Worker, provider: Provider) -> ServedLane:
        lease = request.lease
        kind = provider.state.leases[lease].document.kind
        setting = LaneSetting(kind, request.inputs, request.context_tokens, request.exact)

        def claim(first: int, count: int, units: int, root: bytes) -> asyncio.Future[Any]:
            event = LaneAnswered(provider.services.clock.now_ms(), lease, first, count, units, root)
            return provider.tell_later(event)

        return ServedLane(
            request.window, worker, provider.services.clock, lambda: allowance_units(provider.state, lease), claim,
            setting_hash(setting), lambda first, leaves: self._keep(lease, first, leaves), self._room,
        )  # fmt: skip

    def _keep(self, lease: bytes, first: int, leaves: tuple[bytes, ...]) -> None:
        self._leaves.setdefault(lease, _Leaves()).keep(first, leaves)

    def leaves(self, lease: bytes, first: int) -> tuple[bytes, ...]:
        """Those of the claim that begins at lane number `first`; none when they are not at hand any more."""
        kept = self._leaves.get(lease)
        return kept.claims.get(first, ()) if kept is not None else ()

    def forget(self, lease: bytes) -> None:
        """The lease is over."""
        self._loaded.pop(lease, None)
        self._leaves.pop(lease, None)
