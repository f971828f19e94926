"""One client's stream on a lane: its tasks in, pieces and answers out, and the receipts of them.

Bounded: a client that asks faster than it reads is not read from until it does; answers are then never more than what
it asked for. Pieces of streamed answers come unasked, so a client that leaves MAX_OUT of them, or MAX_OUT_BYTES, unread
loses its lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.registry import lane_side
from fallow.node.api_keys import ApiKeys
from fallow.node.lanes.journal import LaneReceiptNote, lane_receipt_id
from fallow.node.lanes.lane import MAX_TRIES, Lanes
from fallow.node.lanes.leg import RETRY, Ask, Leg
from fallow.node.lanes.payments import Payments
from fallow.node.router import Caller, Router
from fallow.wire.codec import encode
from fallow.wire.local import LaneReceipt, OpenJobLane, PaidTask
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message

MAX_OUT = 16_384
MAX_OUT_BYTES = 32 << 20
MAX_OPEN = 8_192
"""Tasks that are asked or answered and not read, before the client is made to wait."""


class LaneSession:
    """Its numbers are the client's own; ours are the legs'. `keys` are those that tasks may be paid with."""

    def __init__(self, lanes: Lanes, keys: ApiKeys, job: bytes, receipts: bool) -> None:
        self._lanes, self._job, self._receipts = lanes, job, receipts
        self._payments = Payments(keys, lanes.spawn, self._put, self._unpaid)
        self._side = lane_side(lanes.facts.kind_of(job))
        self._asks: dict[int, Ask] = {}
        self._out: deque[Message] = deque()
        self._out_bytes = 0
        self._saving = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._finished = self._gone = False
        self._error: FallowError | None = None
        self._ended: FallowError | None = None

    # in -------------------------------------------------------------------------------------------------------------

    async def read(self, inputs: AsyncIterator[Message]) -> None:
        """Take the client's tasks until it finishes. Never raises: what is wrong with them ends the lane."""
        try:
            async for message in inputs:
                await self._take(message)
        except FallowError as error:
            self._error = self._error or error
        self._finished = True
        self._news.set()

    async def _take(self, message: Message) -> None:
        match message:
            case LaneTask(number):
                await self._wait_for_room(number)
                self._ask(message)
            case PaidTask(number):
                await self._wait_for_room(number)
                self._ask_for_pay(message)
            case LaneStop(number):
                if (ask := self._asks.get(number)) is not None:
                    self._stop(number, ask)
            case _:
                raise fail("E1102", "neither a lane task nor a stop")

    async def _wait_for_room(self, number: int) -> None:
        while len(self._asks) + self._saving + len(self._out) >= MAX_OPEN:
            self._room.clear()
            await self._room.wait()
        if number in self._asks:
            raise fail("E1102", f"lane task {number} is under way already")

    def _ask_for_pay(self, task: PaidTask) -> None:
        try:
            self._payments.reserve(task)
        except FallowError as error:
            self._put(LaneResult(task.number, b"", 0, error.code, error.what))
            return
        self._ask(LaneTask(task.number, task.params, task.seed, stream=True))

    def _ask(self, task: LaneTask) -> None:
        ask = Ask(
            task.params, task.seed, task.stream, self._deliver(task.number), self._receipts or task.stream,
            job=self._job,
        )  # fmt: skip
        self._asks[task.number] = ask
        try:
            ask.units_most = self._side.most_units(task.params)
            self._lanes.ask(ask)
        except FallowError as error:  # this task's own fault, or bad luck; the others go on
            ask.deliver(ask, LaneResult(task.number, b"", 0, error.code, error.what))

    def _stop(self, number: int, ask: Ask) -> None:
        ask.unwanted = True
        if ask.leg is not None:
            ask.leg.stop(ask)
        else:  # it waits for a provider still
            ask.deliver(ask, LaneResult(number, b"", 0, "E1402", "The task was stopped."))

    def _unpaid(self, number: int) -> None:
        if (ask := self._asks.get(number)) is not None:
            self._stop(number, ask)

    # out ------------------------------------------------------------------------------------------------------------

    def _deliver(self, number: int) -> Callable[[Ask, LaneItem | LaneResult], None]:
        def deliver(ask: Ask, message: LaneItem | LaneResult) -> None:
            if isinstance(message, LaneItem):
                ask.text += message.data.decode("utf-8", "replace")
                ask.pieces += min(message.pieces, len(message.data))
                item = msgspec.structs.replace(message, number=number)
                if not self._payments.holds(item):
                    self._put(item)
            elif self._may_retry(ask, message.code) and ask.leg is not None:
                ask.avoid += (ask.leg.plan.lease,)
                self._lanes.again(ask)
            elif self._asks.get(number) is ask:
                del self._asks[number]
                self._answered(ask, msgspec.structs.replace(message, number=number))
                self._lanes.pump(self._job)

        return deliver

    def _may_retry(self, ask: Ask, code: str) -> bool:
        if code not in RETRY or ask.tries >= MAX_TRIES or ask.unwanted:
            return False
        return code != "E1502" or not ask.pieces  # a wrong answer that was told already cannot be taken back

    def _answered(self, ask: Ask, result: LaneResult) -> None:
        leg = ask.leg
        self._saving += 1

        def booked(told: LaneResult) -> None:
            if not ask.receipt or leg is None or told.code:
                self._over((told,))
            else:
                self._keep(leg, ask.number, told)

        if not self._payments.settle(result, booked):
            booked(result)

    def _keep(self, leg: Leg, leg_number: int, result: LaneResult) -> None:
        """What has a receipt is on disk before the user is told."""
        receipt = lane_receipt_id(leg.plan.lease, leg_number)
        cells = {
            f"lane-receipt/{receipt.hex()}": encode(LaneReceiptNote(self._job, leg.plan.lease, leg_number)),
            f"receipts/{self._job.hex()}/{receipt.hex()}": b"",
        }
        leg.when_saved(cells, lambda: self._over((result, LaneReceipt(result.number, receipt))))

    def _over(self, told: tuple[Message, ...]) -> None:
        self._saving -= 1
        for message in told:
            self._put(message)
        self._news.set()  # also when there is nobody to tell

    def _put(self, message: Message) -> None:
        if self._gone or self._error is not None:
            return
        self._out.append(message)
        self._out_bytes += _size(message)
        if len(self._out) > MAX_OUT or self._out_bytes > MAX_OUT_BYTES:
            self._error = fail("E1803", "The answers on this lane were not read fast enough.")
            self._out.clear()
            for number, ask in list(self._asks.items()):
                self._stop(number, ask)
        self._news.set()

    async def answers(self) -> AsyncIterator[Message]:
        """Everything for the client, until it has finished and all is answered. Raises what ended the lane."""
        while True:
            while self._out:
                message = self._out.popleft()
                self._out_bytes -= _size(message)
                yield message
                self._room.set()
            if self._error is not None:
                raise self._error
            if not self._asks and not self._saving:
                if self._ended is not None:
                    raise self._ended
                if self._finished:
                    return
            self._news.clear()
            await self._news.wait()

    def end(self, error: FallowError) -> None:
        """The job has ended: what is under way may still be answered, and then it is over."""
        self._ended = error
        self._news.set()

    def abandon(self) -> None:
        """The client is gone: stop what still runs for it."""
        self._gone = True
        for number, ask in list(self._asks.items()):
            self._stop(number, ask)


def _size(message: Message) -> int:
    """The bytes of an answer or a piece, which count; the rest is small."""
    return len(message.data) if isinstance(message, LaneItem) else len(getattr(message, "value", b""))


def serve_lanes(router: Router, lanes: Lanes, keys: ApiKeys, known: Callable[[bytes], None]) -> None:
    """Answer OpenJobLane on the local socket; `known` raises for a job that has no lane."""

    @router.stream(OpenJobLane)
    async def _(_caller: Caller, request: OpenJobLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        known(request.job)
        session = LaneSession(lanes, keys, request.job, request.receipts)
        lanes.join(request.job, session)
        reader: asyncio.Task[None] | None = None
        try:
            reader = lanes.spawn(session.read(inputs), "lane reader")
            async for item in session.answers():
                yield item
        finally:
            if reader is not None:
                reader.cancel()
            lanes.leave(request.job, session)
            session.abandon()
