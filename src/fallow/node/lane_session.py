"""One client's stream on a lane: its tasks in, pieces and answers out, and the receipts of them.

Bounded: a client that asks faster than it reads is not read from until it does; answers are then never more than what
it asked for. Pieces of streamed answers come unasked, so a client that leaves MAX_OUT of them unread loses its lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from fallow.errors import FallowError, fail
from fallow.node.lane import MAX_TRIES, Lanes
from fallow.node.lane_leg import RETRY, Ask, most_units
from fallow.node.router import Caller, Router
from fallow.node.steward_records import LaneReceiptNote, lane_receipt_id
from fallow.wire.codec import encode
from fallow.wire.local import LaneReceipt, OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message

MAX_OUT = 16_384
MAX_OPEN = 8_192
"""Tasks that are asked or answered and not read, before the client is made to wait."""


class LaneSession:
    """Its numbers are the client's own; ours are the legs'."""

    def __init__(self, lanes: Lanes, job: bytes, receipts: bool) -> None:
        self._lanes, self._job, self._receipts = lanes, job, receipts
        self._kind = lanes.facts.kind_of(job)
        self._asks: dict[int, Ask] = {}
        self._out: deque[Message] = deque()
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
                while len(self._asks) + self._saving + len(self._out) >= MAX_OPEN:
                    self._room.clear()
                    await self._room.wait()
                if number in self._asks:
                    raise fail("E1102", f"lane task {number} is under way already")
                self._ask(message)
            case LaneStop(number):
                if (ask := self._asks.get(number)) is not None:
                    self._stop(ask)
                    if ask.leg is None:  # it waits for a provider still
                        ask.deliver(ask, LaneResult(number, b"", 0, "E1402", "The task was stopped."))
            case _:
                raise fail("E1102", "neither a lane task nor a stop")

    def _ask(self, task: LaneTask) -> None:
        ask = Ask(
            task.params, task.seed, task.stream, self._deliver(task.number), self._receipts or task.stream,
            job=self._job,
        )  # fmt: skip
        self._asks[task.number] = ask
        try:
            ask.units_most = most_units(self._kind, task.params)
            self._lanes.ask(ask)
        except FallowError as error:  # this task's own fault, or bad luck; the others go on
            ask.deliver(ask, LaneResult(task.number, b"", 0, error.code, error.what))

    def _stop(self, ask: Ask) -> None:
        ask.unwanted = True
        if ask.leg is not None:
            ask.leg.stop(ask)

    # out ------------------------------------------------------------------------------------------------------------

    def _deliver(self, number: int) -> Callable[[Ask, LaneItem | LaneResult], None]:
        def deliver(ask: Ask, message: LaneItem | LaneResult) -> None:
            if isinstance(message, LaneItem):
                ask.text += message.data.decode("utf-8", "replace")
                ask.pieces += min(message.pieces, len(message.data))
                self._put(msgspec.structs.replace(message, number=number))
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
        if not ask.receipt or ask.leg is None or result.code:
            self._put(result)
            return
        lease = ask.leg.plan.lease
        receipt = lane_receipt_id(lease, ask.number)
        cells = {
            f"lane-receipt/{receipt.hex()}": encode(LaneReceiptNote(self._job, lease, ask.number)),
            f"receipts/{self._job.hex()}/{receipt.hex()}": b"",
        }

        def saved() -> None:  # what has a receipt is on disk before the user is told
            self._saving -= 1
            self._put(result)
            self._put(LaneReceipt(result.number, receipt))

        self._saving += 1
        ask.leg.when_saved(cells, saved)

    def _put(self, message: Message) -> None:
        if self._gone:
            return
        self._out.append(message)
        if len(self._out) > MAX_OUT:
            self._error = self._error or fail("E1803", "The answers on this lane were not read fast enough.")
        self._news.set()

    async def answers(self) -> AsyncIterator[Message]:
        """Everything for the client, until it has finished and all is answered. Raises what ended the lane."""
        while True:
            while self._out and len(self._out) <= MAX_OUT:
                yield self._out.popleft()
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
        for ask in self._asks.values():
            self._stop(ask)


def serve_lanes(router: Router, lanes: Lanes, known: Callable[[bytes], None]) -> None:
    """Answer OpenJobLane on the local socket; `known` raises for a job that has no lane."""

    @router.stream(OpenJobLane)
    async def _(_caller: Caller, request: OpenJobLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        known(request.job)
        session = LaneSession(lanes, request.job, request.receipts)
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
