"""Lanes: many small tasks of one job, spread over its leases at thousands per second. A task whose provider goes away
is asked elsewhere; a streamed generate task goes on there from the text that was passed on already."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from fallow.errors import FallowError, fail
from fallow.node.lane_audit import LaneAudits
from fallow.node.lane_leg import Ask, Leg, most_units
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.steward_records import LaneReceiptNote, lane_receipt_id
from fallow.rules.node import steward_types as t
from fallow.wire.codec import encode
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.local import LaneReceipt, OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message

MAX_QUEUED = 100_000
MAX_TRIES = 4
OUTBOX = 8192
COVER_TRIES, COVER_EVERY_S = 20, 0.1
Tell = Callable[[t.StewardEvent], Awaitable[None]]


class Lanes:
    """All lanes of a steward: legs by lease, and what waits for a free leg by job."""

    def __init__(self, services: Services, tell: Tell) -> None:
        self._s, self._tell = services, tell
        self.legs: dict[bytes, Leg] = {}
        self._jobs: dict[bytes, bytes] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._waiting: dict[bytes, deque[Ask]] = {}
        self._plans: asyncio.Queue[t.PrepareLane] = asyncio.Queue()
        self._audits: asyncio.Queue[t.AuditLane] = asyncio.Queue()
        self._auditor = LaneAudits(services, self, tell)
        self.room_units: Callable[[bytes], int] = lambda _lease: 0
        self.kind_of: Callable[[bytes], str] = lambda _job: "echo"
        self.job_of: Callable[[bytes], bytes | None] = lambda _lease: None
        self.signed_lease: Callable[[bytes], Signed | None] = lambda _lease: None

    # the brain's side -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_audits(group), name="lane audits")
            while True:
                plan = await self._plans.get()
                job = self.job_of(plan.lease)
                if job is None or plan.lease in self._tasks:
                    continue
                leg = Leg(self._s, plan, (self._s.rpc.address(),), self._again, self._told, self.room_units)
                await asyncio.to_thread(leg.recall)
                self.legs[plan.lease], self._jobs[plan.lease] = leg, job
                self._tasks[plan.lease] = group.create_task(leg.run(), name="lane leg")

    async def _run_audits(self, group: asyncio.TaskGroup) -> None:
        while True:
            effect = await self._audits.get()
            group.create_task(self._auditor.audit(effect), name="lane audit")

    def prepare(self, effect: t.PrepareLane) -> None:
        """Open a leg under a lease; one that is open stays."""
        if (leg := self.legs.get(effect.lease)) is not None and leg.ready:
            self._plans.put_nowait(effect)  # the brain may not have heard: say so again below
        self._plans.put_nowait(effect)

    def audit(self, effect: t.AuditLane) -> None:
        """Check a batch by doing some of it again elsewhere."""
        self._audits.put_nowait(effect)

    async def claimed(
        self, lease: bytes, sequence: int, claim: Signed, claim_hash: bytes, root: ClaimRoot, first: int
    ) -> None:
        """A provider's root over lane answers: told to the brain when it is over exactly what we got. Otherwise it is
        left provisional for ever: nothing is owed for answers that nobody received."""
        leg = self.legs.get(lease)
        for _ in range(COVER_TRIES):  # answers and claims come on two streams: the claim may be the faster one
            if leg is None or leg.covers(root, first) is not None:
                break
            await self._s.clock.sleep(COVER_EVERY_S)
        if leg is None or not leg.covers(root, first):
            what = "The provider claimed lane answers that were not received."
            await self._tell(t.LaneUnready(self._s.clock.now_ms(), lease, "E1502", what, retryable=False))
            return
        event = t.LaneAnswered(
            self._s.clock.now_ms(), lease, sequence, claim, claim_hash, first, root.count, root.units
        )  # fmt: skip
        self._s.log.put(f"lane-claim/{lease.hex()}/{first:016d}", encode(event))
        leg.claimed(root.units)
        await self._tell(event)
        self._pump(self._jobs[lease])

    def close(self, lease: bytes) -> None:
        """The lease is settled."""
        if (task := self._tasks.pop(lease, None)) is not None:
            task.cancel()
        self.legs.pop(lease, None)

    async def _told(self, leg: Leg, error: FallowError | None) -> None:
        now_ms, lease = self._s.clock.now_ms(), leg.plan.lease
        if error is None:
            await self._tell(t.LaneReady(now_ms, lease))
            self._pump(self._jobs[lease])
        elif not error.retryable:
            await self._tell(t.LaneUnready(now_ms, lease, error.code, error.what[:4000], retryable=True))

    # the asking side ------------------------------------------------------------------------------------------------

    def ask(self, job: bytes, ask: Ask) -> None:
        """Send a task on the job's least loaded leg, or queue it. Raises UnavailableError E1803 when too many wait."""
        waiting = self._waiting.setdefault(job, deque())
        if len(waiting) >= MAX_QUEUED:
            raise fail("E1803", "Too many tasks wait on this lane.")
        if waiting or not self._place(job, ask):
            waiting.append(ask)

    def _place(self, job: bytes, ask: Ask) -> bool:
        best: Leg | None = None
        for lease, leg in self.legs.items():
            if self._jobs[lease] != job or not leg.ready or lease in ask.avoid or ask.only not in (b"", lease):
                continue
            if best is None or leg.load < best.load:
                best = leg
        return best is not None and best.take(ask)

    def _pump(self, job: bytes) -> None:
        waiting = self._waiting.get(job)
        while waiting and self._place(job, waiting[0]):
            waiting.popleft()

    def answered(self, job: bytes) -> None:
        """A leg has room again."""
        if self._waiting.get(job):
            self._pump(job)

    def _again(self, ask: Ask) -> None:
        """The leg under a task broke: ask elsewhere, a bounded number of times."""
        job = self._jobs.get(ask.only) if ask.only else ask.job
        if ask.tries >= MAX_TRIES or job is None:
            ask.deliver(ask, LaneResult(ask.number, b"", 0, "E1801", "Every provider that was asked went away."))
            return
        self._waiting.setdefault(job, deque()).appendleft(ask)
        self._pump(job)

    def keep_receipt(self, identifier: bytes, note: LaneReceiptNote) -> None:
        """On disk, under the receipt's id and in the list of its job."""
        self._s.log.put(f"lane-receipt/{identifier.hex()}", encode(note))
        self._s.log.put(f"receipts/{note.job.hex()}/{identifier.hex()}", b"")

    def fail_job(self, job: bytes, code: str, what: str) -> None:
        """The job has ended: nothing more will be answered."""
        for ask in self._waiting.pop(job, deque()):
            ask.deliver(ask, LaneResult(ask.number, b"", 0, code, what))


class LaneSession:
    """One client's stream on a lane: its numbers are its own, ours are the legs'."""

    def __init__(self, lanes: Lanes, job: bytes, receipts: bool) -> None:
        self._lanes, self._job, self._receipts = lanes, job, receipts
        self._asks: dict[int, Ask] = {}
        self._ours: dict[bytes, int] = {}
        self.outbox: asyncio.Queue[Message | tuple[Leg, list[Message]] | None] = asyncio.Queue(OUTBOX)
        self._room = asyncio.Event()
        self._room.set()
        self._finished = False
        self.error: FallowError | None = None

    async def read(self, inputs: AsyncIterator[Message]) -> None:
        """Take the client's tasks until it finishes; reading pauses while its answers pile up unread."""
        async for message in inputs:
            match message:
                case LaneTask(number, params, seed, stream):
                    await self._room.wait()
                    ask = Ask(
                        params, seed, stream, self._deliver(number), self._receipts or stream, job=self._job,
                        units_most=most_units(self._lanes.kind_of(self._job), params),
                    )  # fmt: skip
                    self._asks[number] = ask
                    self._lanes.ask(self._job, ask)
                    if len(self._asks) >= OUTBOX // 2:
                        self._room.clear()
                case LaneStop(number):
                    if (ask := self._asks.get(number)) is not None and ask.leg is not None:
                        ask.leg.stop(ask)
                case _:
                    raise fail("E1102", "neither a lane task nor a stop")
        self._finished = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._finished and not self._asks:
            self._put(None)

    def _deliver(self, number: int) -> Callable[[Ask, LaneItem | LaneResult], None]:
        def deliver(ask: Ask, message: LaneItem | LaneResult) -> None:
            if isinstance(message, LaneItem):
                ask.text += message.data.decode("utf-8", "replace")
                self._put(LaneItem(number, message.data))
                return
            if message.code and message.code != "E1402" and message.code in RETRY and ask.tries < MAX_TRIES:
                ask.avoid += (ask.leg.plan.lease,) if ask.leg is not None else ()
                self._lanes.ask(self._job, ask)
                return
            self._asks.pop(number, None)
            if len(self._asks) < OUTBOX // 4:
                self._room.set()
            result = msgspec.structs.replace(message, number=number)
            if ask.receipt and ask.leg is not None and not message.code:
                receipt = lane_receipt_id(ask.leg.plan.lease, ask.number)
                self._ours[receipt] = ask.number
                self._put((ask.leg, [result, LaneReceipt(number, receipt)]))
            else:
                self._put(result)
            self._end_if_idle()
            self._lanes.answered(self._job)

        return deliver

    def _put(self, message: Message | tuple[Leg, list[Message]] | None) -> None:
        try:
            self.outbox.put_nowait(message)
        except asyncio.QueueFull:
            # a client that reads too slowly loses its lane, never a piece of an answer
            self.error = fail("E1803", "The answers on this lane were not read fast enough.")

    def end_with(self, error: FallowError) -> None:
        """What the client said was no task, or it is gone."""
        self.error = self.error or error
        if not self.outbox.full():
            self.outbox.put_nowait(None)

    def keep_receipt(self, leg: Leg, messages: list[Message]) -> None:
        """Remember what the receipt's id stands for."""
        for message in messages:
            if isinstance(message, LaneReceipt):
                note = LaneReceiptNote(self._job, leg.plan.lease, self._ours.pop(message.receipt))
                self._lanes.keep_receipt(message.receipt, note)

    def abandon(self) -> None:
        """The client is gone: stop what still runs for it."""
        for ask in self._asks.values():
            if ask.leg is not None:
                ask.leg.stop(ask)


RETRY = frozenset({"E1502", "E1704", "E1801", "E1803", "E9001"})


def serve_lanes(router: Router, lanes: Lanes, known: Callable[[bytes], None]) -> None:
    """Answer OpenJobLane on the local socket; `known` raises for a job that has no lane."""

    @router.stream(OpenJobLane)
    async def _(_caller: Caller, request: OpenJobLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        known(request.job)
        session = LaneSession(lanes, request.job, request.receipts)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_read(session, inputs), name="lane reader")
            try:
                while (item := await session.outbox.get()) is not None and session.error is None:
                    if isinstance(item, tuple):
                        leg, messages = item
                        await leg.saved()  # what has a receipt is on disk before the user is told
                        session.keep_receipt(leg, messages)
                        for message in messages:
                            yield message
                    else:
                        yield item
            finally:
                reader.cancel()
                session.abandon()
        if session.error is not None:  # out here, so that it is not wrapped in the group's
            raise session.error


async def _read(session: LaneSession, inputs: AsyncIterator[Message]) -> None:
    try:
        await session.read(inputs)
    except FallowError as error:
        session.end_with(error)
