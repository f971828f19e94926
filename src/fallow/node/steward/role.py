"""The steward process: one owner task feeds events to the pure brain (`rules/steward/machine.py`), writes each to the
log first, and starts the effects that come back. Whatever is killed at whatever moment, the log brings back. From time
to time a snapshot takes the place of the events so far, in the same write that forgets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from fallow.errors import FallowError, UnavailableError, fail
from fallow.kinds.registry import metered
from fallow.node.lanes.lane import Lanes
from fallow.node.services import Services
from fallow.node.steward.blobs import IMPORTED, forget, keep_results
from fallow.node.steward.effects import Performer
from fallow.node.steward.order import LeaseOrder
from fallow.node.steward.records import Records
from fallow.node.steward.salvage import Salvage
from fallow.node.steward.watch import WatchedLease, Watches
from fallow.rules.steward import events as t
from fallow.rules.steward.end import ended_effect
from fallow.rules.steward.machine import State, due, outstanding, transition, unheard_of, view
from fallow.rules.steward.shapes.registry import shape_of
from fallow.rules.steward.snapshot import REST_MS, is_former, read_snapshot, retire, write_snapshot
from fallow.rules.steward.state import Stage
from fallow.wire.codec import UnheardError, encode, recall
from fallow.wire.documents import Signed
from fallow.wire.local import JobSpec, JobView
from fallow.wire.tasks import TaskOutput

log = structlog.get_logger()

STREAM, SNAPSHOT = "steward", "steward-snapshot"
COMPACT_BYTES = 4 << 20
"""Events are replaced by a snapshot when they take this much, and as much as the last snapshot did: so the log is never
much larger than what is under way, and writing snapshots costs no more than writing events."""
MAX_SNAPSHOT_BYTES = 512 << 20
"""A larger state keeps its events: one value of the log's file cannot be much larger."""
QUEUE = 4096
TICK_S = 0.25
RETRY_FIRST_S, RETRY_MOST_S = 0.25, 5.0
MAX_RUNNING = 256
REPLAY_BATCH = 1_000


class Steward:
    """The steward role of a node. `tell` may be called from any task of the node's loop."""

    def __init__(self, services: Services, timing: t.Timing) -> None:
        self._services = services
        self._timing = timing
        self.state = State()
        self.records = Records(services)
        self.lanes = Lanes(services, self.tell, self)
        self._watches = Watches(services, self.records, self.lanes, self.tell, self._tell_and_wait, self._facts)
        self._performer = Performer(services, self.records)
        self._queue: asyncio.Queue[tuple[t.StewardEvent, asyncio.Future[None] | None]] = asyncio.Queue(QUEUE)
        self._running: set[bytes] = set()
        self._order = LeaseOrder()
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._group: asyncio.TaskGroup | None = None
        self._last, self._since_bytes, self._snapshot_bytes = 0, 0, 0
        self.deciding = asyncio.Lock()
        """Held from a decision until its records are on disk. Whoever shows a job to people takes it, or a job would be
        seen as done a moment before its last notes are there to be asked for."""

    # what others ask ------------------------------------------------------------------------------------------------

    async def tell(self, event: t.StewardEvent) -> None:
        """Queue an event; waits while the queue is full, so that a flood from peers slows the peers down."""
        await self._queue.put((event, None))

    async def submit(self, job: bytes, spec: JobSpec) -> None:
        """Take a job; returns once it is on disk."""
        await self._tell_and_wait(t.UserSubmitted(self._services.clock.now_ms(), job, spec))

    async def cancel(self, job: bytes) -> None:
        """Cancel a job; returns once that is on disk. Raises UsageError E2002 for a job that is not there."""
        self.view(job)
        await self._tell_and_wait(t.UserCancelled(self._services.clock.now_ms(), job))

    def view(self, job: bytes) -> JobView:
        """Raises UsageError E2002 for a job that is not there."""
        found = view(self.state, job) or self.records.retired.get(job)
        if found is None:
            raise fail("E2002", f"There is no job j_{job.hex()}.")
        return found

    def jobs(self) -> list[bytes]:
        """All job ids, oldest first."""
        return list(dict.fromkeys((*self.records.retired, *self.state.jobs)))

    def spec(self, job: bytes) -> JobSpec:
        """What a job asked for. Raises UsageError E2002 for a job that is not there, or ended long ago."""
        shown = self.view(job)
        if job not in self.state.jobs:
            raise fail("E2002", f"j_{job.hex()} has ended ({shown.phase}); what it asked for is not kept any more.")
        return self.state.jobs[job].spec

    async def _tell_and_wait(self, event: t.StewardEvent) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((event, done))
        await done

    # what the interpreters need to know of the state -----------------------------------------------------------------

    def job_of(self, lease: bytes) -> bytes | None:
        """The job that a lease is for."""
        place = self.state.leases.get(lease)
        return None if place is None else place[0]

    def room_units(self, lease: bytes) -> int:
        """What may still be sent under a lease; 0 for one that must get nothing now."""
        found = self.state.seat_of(lease)
        if found is None or found[0].ending is not None or not found[1].usable:
            return 0
        return found[1].room_units()

    def kind_of(self, job: bytes) -> str:
        """The workload of a job that is there."""
        return self.state.jobs[job].kind

    def signed_lease(self, lease: bytes) -> Signed | None:
        """A lease with its provider's signature."""
        found = self.state.seat_of(lease)
        return None if found is None else found[1].theirs

    def _facts(self, lease: bytes) -> WatchedLease | None:
        found = self.state.seat_of(lease)
        if found is None:
            return None
        job, seat = found

        def units(task: bytes, output: TaskOutput) -> int:
            slot = job.tasks.get(task)
            return 0 if slot is None else metered(job.slots[slot].spec, output)

        away = seat.node in self.state.roll.since
        return WatchedLease(job.id, seat.account, seat.node, units, seat.stage is Stage.OPEN, away)

    # the owner's loop -----------------------------------------------------------------------------------------------

    def replay(self) -> int:
        """Rebuild the state from the last snapshot and the events after it; -> how many events. Records are written
        again under their own keys, which changes nothing unless the process died between the log and them."""
        saved = self._services.log.get(SNAPSHOT)
        if saved is not None and not is_former(saved):
            try:
                self._snapshot_bytes = len(saved)
                return self._replay(saved)
            except UnheardError as error:
                log.warning("jobs cannot go on", what=error.what)
        self._snapshot_bytes = 0
        return self._replay(Salvage(self._services, self.records).run(STREAM, SNAPSHOT))

    def _replay(self, saved: bytes) -> int:
        """Raises UnheardError when a job takes what nobody here has registered."""
        count, records = 0, list[t.StewardEffect]()
        snapshot = read_snapshot(saved)
        self.state, self._last = snapshot.state, snapshot.number
        self._since_bytes = 0
        for job in self.state.jobs.values():
            _refuse_unheard(job.spec)
        self.records.load()
        for number, raw in self._services.log.read(STREAM, self._last):
            self._last = number
            self._since_bytes += len(raw)
            event = recall(t.AnyStewardEvent, raw)
            if isinstance(event, t.UserSubmitted):
                _refuse_unheard(event.spec)
            records.extend(effect for effect in transition(self.state, event) if isinstance(effect, t.RECORDS))
            count += 1
            if len(records) >= REPLAY_BATCH:
                self._keep(records)
                records = []
        self._keep(records)
        return count

    def _keep(self, records: Sequence[t.StewardEffect]) -> None:
        self.records.keep(records)
        for effect in records:
            if isinstance(effect, t.JobEnded):
                keep_results(self._services.blobs, effect)

    async def run(self, ready: asyncio.Event) -> None:
        """Work until cancelled; `ready` is set once the log is replayed. Raises what the log raises when it cannot be
        written: the state in memory is then ahead of the disk and must be forgotten."""
        services = self._services
        await asyncio.to_thread(services.blobs.unpin_all, IMPORTED)
        replayed = await asyncio.to_thread(self.replay)
        me = t.StewardIdentity(services.identity.account, services.identity.node, services.bank_account)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.lanes.run(), name="lanes")
            await self._take([t.StewardStarted(services.clock.now_ms(), me, self._timing)])
            self._start(outstanding(self.state))
            self._reopen()
            await self._compact()
            ready.set()
            log.info("steward ready", events=replayed, jobs=len(self.state.jobs))
            group.create_task(self._tick(), name="steward tick")
            while True:
                await self._drain()

    def _reopen(self) -> None:
        """After a restart: lanes that were ready for the brain must be opened again here, and those of jobs that have
        ended take nothing more."""
        for job in self.state.jobs.values():
            if not shape_of(job.spec.work).on_lanes:
                continue
            if job.reported:
                self._end_lanes(ended_effect(job))
            for number in job.live:
                seat = job.seats[number]
                if seat.stage is Stage.OPEN:
                    self.lanes.prepare(t.PrepareLane(seat.lease, seat.peer, job.spec.work))

    async def _drain(self) -> None:
        batch = [await self._queue.get()]
        while not self._queue.empty() and len(batch) < 64:
            batch.append(self._queue.get_nowait())
        await self._take([event for event, _ in batch])
        for _, done in batch:
            if done is not None and not done.done():
                done.set_result(None)
        await self._compact()

    async def _take(self, events: list[t.StewardEvent]) -> None:
        """Write ahead, decide, record, act; in this order, so that a crash between any two is harmless."""
        events = [event for event in events if not self._is_over(event)]
        raws = [encode(event) for event in events]
        self._last = await asyncio.to_thread(self._services.log.append, STREAM, raws)
        self._since_bytes += sum(map(len, raws))
        async with self.deciding:
            effects = [effect for event in events for effect in transition(self.state, event)]
            records = [effect for effect in effects if isinstance(effect, t.RECORDS)]
            if records:
                await asyncio.to_thread(self._keep, records)
                self.records.tell(records)
        for event in events:
            if isinstance(event, t.LedgerClosed):
                self._watches.stop(event.lease)
                self.lanes.close(event.lease)
        for effect in records:
            if isinstance(effect, t.JobEnded):
                self._end_lanes(effect)
        self._start(effect for effect in effects if not isinstance(effect, t.RECORDS))

    def _is_over(self, event: t.StewardEvent) -> bool:
        """Whether a job is handed in that has ended and left the state: it must not begin again."""
        if not isinstance(event, t.UserSubmitted) or event.job in self.state.jobs:
            return False
        return self.records.outcome(event.job) is not None

    async def _compact(self) -> None:
        """When it is worth it: take jobs that are over out of the state, and replace all events by a snapshot. Nobody
        else changes the state meanwhile; what cannot be written ends the process, as in `_take`."""
        if self._since_bytes < max(COMPACT_BYTES, self._snapshot_bytes):
            return
        charges = await asyncio.to_thread(self.records.charges, list(self.state.leases))
        jobs = retire(self.state, self._services.clock.now_ms() - REST_MS, charges)
        too_many = self.records.take_over(jobs)
        await asyncio.to_thread(forget, self._services.blobs, too_many)
        cells, gone = await asyncio.to_thread(self.records.cells_of, jobs, too_many)
        raw, upto = await asyncio.to_thread(write_snapshot, self.state, self._last), self._last
        if len(raw) <= MAX_SNAPSHOT_BYTES:
            cells[SNAPSHOT] = raw
        else:
            log.warning("the steward's state is too large for a snapshot", size_bytes=len(raw))
            upto = 0
        await asyncio.to_thread(self._services.log.cut, STREAM, upto, cells, gone)
        self._since_bytes, self._snapshot_bytes = 0, len(raw)
        log.info("steward compacted", events=upto, size_bytes=len(raw), retired=len(jobs), jobs=len(self.state.jobs))

    def _end_lanes(self, ended: t.JobEnded) -> None:
        self.lanes.end_job(ended.job, ended.code or "E1302", ended.what or "The job has ended.")

    async def _tick(self) -> None:
        while True:
            await self._services.clock.sleep(TICK_S)
            now_ms = self._services.clock.now_ms()
            if due(self.state, now_ms):
                await self.tell(t.ClockTicked(now_ms))

    # effects --------------------------------------------------------------------------------------------------------

    def _start(self, effects: Iterable[t.StewardEffect]) -> None:
        assert self._group is not None
        for effect in effects:
            match effect:
                case t.Watch():
                    self._watches.watch(self._group, effect)
                case t.PrepareLane():
                    self.lanes.prepare(effect)
                case t.AuditLane():
                    self.lanes.audit(effect)
                case _:
                    key = encode(effect)
                    if key not in self._running:
                        self._running.add(key)
                        carrying = self._carry_out(key, effect, self._order.before(effect))
                        self._order.add(effect, self._group.create_task(carrying, name=type(effect).__name__))

    async def _carry_out(self, key: bytes, effect: t.StewardEffect, before: Sequence[asyncio.Task[None]]) -> None:
        """Run one effect, after those that come `before` it, until it is answered, or until the brain no longer wants
        it."""
        wait_s = RETRY_FIRST_S
        try:
            if before:
                await asyncio.wait(before)
            while True:
                try:
                    async with self._slots:
                        event = await self._performer.run(effect)
                    if event is not None:
                        await self.tell(event)
                    return
                except UnavailableError as error:
                    log.info("effect waits", effect=type(effect).__name__, code=error.code, what=error.what)
                except FallowError as error:
                    log.warning("effect refused", effect=type(effect).__name__, code=error.code, what=error.what)
                await self._services.clock.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MOST_S)
                if effect not in outstanding(self.state):
                    return
        finally:
            self._running.discard(key)


def _refuse_unheard(spec: JobSpec) -> None:
    if what := unheard_of(spec):
        raise UnheardError("E2001", f"A job under way takes what is not here: {what}.")
