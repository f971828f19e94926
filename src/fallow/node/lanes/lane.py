"""Lanes: many small tasks of one job, spread over its leases at thousands per second. A task whose provider goes away
is asked elsewhere; a streamed generate task goes on there from the text that was passed on already."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Protocol

from fallow.errors import FallowError, fail
from fallow.node.groups import begin
from fallow.node.lanes.audit import LaneAudits, Tell
from fallow.node.lanes.journal import keep_claim, keep_leaves
from fallow.node.lanes.leg import Ask, Leg
from fallow.node.services import Services
from fallow.rules.steward import events as t
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.messages import LaneResult

MAX_QUEUED = 100_000
MAX_TRIES = 4
LOOK_EVERY_S = 1.0
STARVED_S = 30.0
"""How long a task waits while every lane that is ready lacks the money for it."""
COVER_TRIES, COVER_EVERY_S = 20, 0.1


class LaneFacts(Protocol):
    """What lanes need to know of the steward's state."""

    def job_of(self, lease: bytes) -> bytes | None: ...

    def kind_of(self, job: bytes) -> str: ...

    def room_units(self, lease: bytes) -> int:
        """What may still be answered under a lease; 0 for one that must get nothing now."""
        ...

    def signed_lease(self, lease: bytes) -> Signed | None:
        """The lease with its provider's signature."""
        ...


class Client(Protocol):
    """Whoever asks on a lane. `end` is called once nothing more will be answered."""

    def end(self, error: FallowError) -> None: ...


class Lanes:
    """All lanes of a steward: legs by lease, and what waits for a free leg by job."""

    def __init__(self, services: Services, tell: Tell, facts: LaneFacts) -> None:
        self._s, self._tell, self.facts = services, tell, facts
        self.legs: dict[bytes, Leg] = {}
        self._of_job: dict[bytes, dict[bytes, Leg]] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._waiting: dict[bytes, deque[Ask]] = {}
        self._clients: dict[bytes, dict[Client, None]] = {}
        self._ended: dict[bytes, FallowError] = {}
        self._plans: asyncio.Queue[t.PrepareLane] = asyncio.Queue()
        self._auditor = LaneAudits(services, self.legs, facts.signed_lease, tell)
        self._group: asyncio.TaskGroup | None = None

    # the brain's side -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._look_after(), name="lane care")
            try:
                while True:
                    await self._open(await self._plans.get())
            finally:
                self._group = None

    async def _open(self, plan: t.PrepareLane) -> None:
        job, leg = self.facts.job_of(plan.lease), self.legs.get(plan.lease)
        if leg is not None and leg.ready:
            await self._tell(t.LaneLoaded(self._s.clock.now_ms(), plan.lease))
        if job is None or leg is not None or self._group is None:
            return
        leg = Leg(self._s, plan, (self._s.rpc.address(),), self._again, self._told, self.facts.room_units)
        await asyncio.to_thread(leg.recall)
        self.legs[plan.lease] = leg
        self._of_job.setdefault(job, {})[plan.lease] = leg
        self._tasks[plan.lease] = self._group.create_task(leg.run(), name="lane leg")

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something for as long as the lanes live. Raises UnavailableError E1801 when they do not."""
        return begin(self._group, work, name)

    def prepare(self, effect: t.PrepareLane) -> None:
        """Open a leg under a lease; one that is open stays."""
        self._plans.put_nowait(effect)

    def audit(self, effect: t.AuditLane) -> None:
        """Check a batch by doing some of it again elsewhere."""
        with suppress(FallowError):  # asked for again after the next start
            self.spawn(self._auditor.audit(effect), "lane audit")

    async def claimed(
        self, lease: bytes, sequence: int, claim: Signed, claim_hash: bytes, root: ClaimRoot, first: int
    ) -> None:
        """A provider's root over lane answers: told to the brain when it is over exactly what we got. One over other
        answers than ours ends the provider's work under the lease. Of one that is also over answers that never came,
        those that came count, once the provider shows the leaves: nothing is owed for what nobody received. Raises
        UnavailableError E1801 while the lane is not open here, so that the claim is heard again later."""
        leg, covered = self.legs.get(lease), None
        for _ in range(COVER_TRIES):  # answers and claims come on two streams: the claim may be the faster one
            if leg is not None and (covered := leg.covers(root, first)) is not None:
                break
            await self._s.clock.sleep(COVER_EVERY_S)
            leg = self.legs.get(lease)
        if leg is None:
            raise fail("E1801", "A claim came before its lane was open.")
        units = root.units
        if covered is None and (received := await leg.received(root, first)) is not None:
            units, leaves = received
            if covered := bool(leaves):
                await asyncio.to_thread(keep_leaves, self._s.log, lease, first, leaves)
        if covered is False:
            what = "It claimed other lane answers than it gave."
            await self._tell(t.PeerLeaving(self._s.clock.now_ms(), lease, 0, what))
        if not covered:
            return
        got, paid = leg.got(first, root.count), leg.paid(first, root.count)
        event = t.PeerClaimedBatch(
            self._s.clock.now_ms(), lease, sequence, claim, claim_hash, first, root.count, sum(map(leg.counted, got)),
            leg.setting, len(paid), sum(record.refused for record in got),
        )  # fmt: skip
        await asyncio.to_thread(keep_claim, self._s.log, event)
        await self._tell(event)
        leg.claimed(units)
        self._pump_lease(lease)

    def close(self, lease: bytes) -> None:
        """The lease is settled."""
        if (task := self._tasks.pop(lease, None)) is not None:
            task.cancel()
        self.legs.pop(lease, None)
        for job, legs in list(self._of_job.items()):
            if legs.pop(lease, None) is not None and not legs:
                del self._of_job[job]

    def end_job(self, job: bytes, code: str, what: str) -> None:
        """The job has ended: nothing that waits will be answered. What is under way may still be."""
        error = self._ended[job] = fail(code, what)
        for ask in self._waiting.pop(job, deque()):
            _refuse(ask, error)
        for client in tuple(self._clients.get(job, ())):
            client.end(error)

    async def _told(self, leg: Leg, error: FallowError | None) -> None:
        now_ms, lease = self._s.clock.now_ms(), leg.plan.lease
        if error is None:
            await self._tell(t.LaneLoaded(now_ms, lease))
            self._pump_lease(lease)
        elif not error.retryable:
            await self._tell(t.LaneUnready(now_ms, lease, error.code, error.what[:4000], retryable=False))

    # the asking side ------------------------------------------------------------------------------------------------

    def join(self, job: bytes, client: Client) -> None:
        """Somebody will ask. Raises the error that ended the job when it has ended."""
        if (ended := self._ended.get(job)) is not None:
            raise ended
        self._clients.setdefault(job, {})[client] = None

    def leave(self, job: bytes, client: Client) -> None:
        """Nobody asks there any more."""
        clients = self._clients.get(job, {})
        clients.pop(client, None)
        if not clients:
            self._clients.pop(job, None)

    def ask(self, ask: Ask) -> None:
        """Send a task on its job's least loaded leg, or queue it. Raises UnavailableError E1803 when too many wait, and
        what ended the job when it has ended."""
        if (ended := self._ended.get(ask.job)) is not None:
            raise ended
        waiting = self._waiting.setdefault(ask.job, deque())
        if len(waiting) >= MAX_QUEUED:
            raise fail("E1803", "Too many tasks wait on this lane.")
        ask.since_s = self._s.clock.monotonic_s()
        if waiting or not self._place(ask):
            waiting.append(ask)

    def again(self, ask: Ask) -> None:
        """Ask a task elsewhere, before all that came later."""
        if (ended := self._ended.get(ask.job)) is not None:
            _refuse(ask, ended)
            return
        ask.leg, ask.since_s = None, self._s.clock.monotonic_s()
        self._waiting.setdefault(ask.job, deque()).appendleft(ask)
        self.pump(ask.job)

    def _again(self, ask: Ask) -> None:
        """The leg under a task broke: ask elsewhere, a bounded number of times."""
        if ask.only or ask.unwanted or ask.tries >= MAX_TRIES:
            _refuse(ask, fail("E1801", "The provider that was asked went away."))
        else:
            self.again(ask)

    def _place(self, ask: Ask) -> bool:
        ready = [leg for leg in self._of_job.get(ask.job, {}).values() if leg.ready]
        if ask.avoid:
            ready = [leg for leg in ready if leg.plan.lease not in ask.avoid] or ready
        ready.sort(key=lambda leg: leg.load)
        return any(leg.take(ask) for leg in ready)

    def pump(self, job: bytes) -> None:
        """A leg has room again, or there is a new one."""
        waiting = self._waiting.get(job)
        while waiting and (waiting[0].unwanted or self._place(waiting[0])):
            waiting.popleft()

    def _pump_lease(self, lease: bytes) -> None:
        if (job := self.facts.job_of(lease)) is not None:
            self.pump(job)

    async def _look_after(self) -> None:
        """Room under a lease also changes without anything happening here. What waits for money that does not come is
        refused, so that it does not hold up what would fit."""
        while True:
            await self._s.clock.sleep(LOOK_EVERY_S)
            late_s = self._s.clock.monotonic_s() - STARVED_S
            for job in list(self._waiting):
                self.pump(job)
                waiting = self._waiting.get(job)
                while waiting and waiting[0].since_s < late_s and self._starving(job):
                    error = fail("E1205", "No provider of this job has the money left for such a task.")
                    _refuse(waiting.popleft(), error)
                    self.pump(job)

    def _starving(self, job: bytes) -> bool:
        """Whether providers are ready, and idle: more room than now there will not be."""
        ready = [leg for leg in self._of_job.get(job, {}).values() if leg.ready]
        return bool(ready) and all(leg.idle for leg in ready)


def _refuse(ask: Ask, error: FallowError) -> None:
    ask.deliver(ask, LaneResult(ask.number, b"", 0, error.code, error.what))
