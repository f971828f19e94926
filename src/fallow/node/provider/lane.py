"""The provider's side of a lane: thousands of small tasks a second over one stream, without a signature or a write to
disk for any of them.

Whatever arrives together goes to the worker together, and whatever it answers together goes back together. Once a
second the answers that left a second ago become leaves under one signed root; so by the time the requester hears of the
claim it has the answers. A claim costs both sides a signature and several writes to disk, on processors that also
compute the answers, so a lane with few answers does not claim more often; one that is `pressed` claims four times a
second, since what is not claimed is not paid.

Bounded: unanswered tasks by the lane's window (one more breaks the stream) and by their bytes (`LaneRoom`: the next is
not read before there is room), answers waiting to be claimed by MAX_UNCLAIMED, pieces of answers that the requester
does not read by holding the worker back, unpaid work by the lease's credit. Defends against: numbers that repeat, which
would let two answers stand under one number; a worker that computes for ever on what a stranger sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, NamedTuple, Protocol

from fallow.errors import FallowError, fail
from fallow.ports import Worker
from fallow.units import MIB
from fallow.wire.claims import lane_leaf, merkle_root, params_hash, value_hash
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message
from fallow.wire.worker import MAX_LANE_BATCH, FromWorker, LaneAnswers, LaneBatch, LaneCancel

CLAIM_EVERY_S = 0.25
CALM_S = 1.0
"""How long a lane that is not pressed lets answers gather for one claim."""
PRESSED_ANSWERS = 256
PRESSED_PART = 4
"""Of the allowance: a lane is pressed once this part of it is used up by answers that are not claimed."""
MAX_UNCLAIMED = 100_000
MAX_OUT = 8_192
MAX_OUT_BYTES = 4 * MIB
LANE_BYTES, ALL_LANES_BYTES = 16 * MIB, 128 * MIB
"""What the unanswered tasks of one lane, and of all, may take; a lane may always have one."""
MAX_BATCH_BYTES = 4 * MIB
STARVED_S = 30.0
"""How long tasks wait for money under a lease before they are handed back."""
SILENT_S = 600.0
"""How long a worker with tasks may say nothing before it counts as stuck: longer than any prompt takes to read."""

RecordClaim = Callable[[int, int, int, bytes], "asyncio.Future[Any]"]
"""first, count, units, root -> done when the claim counts against the allowance."""
Keep = Callable[[int, tuple[bytes, ...]], None]
"""first, leaves: for a requester whom not all of the answers reached."""


class Sleeper(Protocol):
    """The part of `ports.Clock` that is needed here."""

    def monotonic_s(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class _Leaf(NamedTuple):
    """What is kept of an answer until it is claimed."""

    number: int
    units: int
    leaf: bytes


def _leaf(task: LaneTask, result: LaneResult, setting: bytes) -> _Leaf:
    number, units = task.number, result.units
    leaf = lane_leaf(number, params_hash(task.params), task.seed, value_hash(result.value), units, setting)
    return _Leaf(number, units, leaf)


class LaneRoom:
    """What the tasks of all lanes of a provider take."""

    def __init__(self) -> None:
        self.bytes = 0
        self._freed = asyncio.Event()

    async def take(self, lane: ServedLane, size_bytes: int) -> None:
        """Wait until one more task fits."""
        while lane.held_bytes and (
            lane.held_bytes + size_bytes > LANE_BYTES or self.bytes + size_bytes > ALL_LANES_BYTES
        ):
            self._freed.clear()
            await self._freed.wait()
        self.change(lane, size_bytes)

    def change(self, lane: ServedLane, change_bytes: int) -> None:
        """A lane holds more, or less."""
        lane.held_bytes += change_bytes
        self.bytes += change_bytes
        self._freed.set()


class ServedLane:
    """One open lane. `allowance` tells how many units may still be answered before money comes; `claim` records a
    root; `setting` is the hash of what the lane was opened with, for the leaves."""

    def __init__(
        self, window: int, worker: Worker, clock: Sleeper, allowance: Callable[[], int], claim: RecordClaim,
        setting: bytes, keep: Keep | None = None, room: LaneRoom | None = None,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._window, self._worker, self._clock = window, worker, clock
        self._allowance, self._claim, self._keep = allowance, claim, keep
        self._room, self.held_bytes = room or LaneRoom(), 0
        self._asked: dict[int, LaneTask] = {}
        self._held: list[LaneTask] = []
        self._starved_s: float | None = None
        self._costliest = 1
        self._flying = 0
        self._flush_due = False
        self._last = 0
        self._out: list[LaneItem | LaneResult] = []
        self._out_bytes = 0
        self._news = asyncio.Event()
        self._over = ""
        self._error: FallowError | None = None
        self._closed = False
        self._sent: list[_Leaf] = []
        self._ripe: dict[int, _Leaf] = {}
        self._next = 0
        self._unclaimed_units = 0
        self._looked_s = self._heard_s = clock.monotonic_s()

    # from the requester ---------------------------------------------------------------------------------------------

    async def read(self, inputs: AsyncIterator[Message]) -> None:
        """Take tasks until the requester has no more. What does not belong here ends the lane."""
        try:
            async for message in inputs:
                if type(message) is LaneTask:
                    await self._room.take(self, len(message.params))
                    self._take(message)
                elif isinstance(message, LaneStop):
                    self._worker.send(LaneCancel((message.number,)))
                else:
                    raise fail("E1102", f"a {type(message).__name__} on a lane")
        except FallowError as error:
            self._error = error
            self.end(error.what)

    def _take(self, task: LaneTask) -> None:
        number = task.number
        if number <= self._last:
            raise fail("E1102", f"lane task {number} after {self._last}: numbers count up")
        if len(self._asked) >= self._window:
            raise fail("E1803", f"more than {self._window} unanswered tasks on a lane")
        self._last = number
        self._asked[number] = task
        self._held.append(task)
        if not self._flush_due:
            self._flush_due = True
            # runs when everything that arrived with this task has been taken
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what may be worked on to the worker, together."""
        self._flush_due = False
        while self._held and not self._over:
            left = self._allowance() - self._unclaimed_units
            # However much one answer costs: as long as there is credit, one may be worked on.
            room = max(left // self._costliest, left > 0) - self._flying
            count = min(len(self._held), MAX_LANE_BATCH, room)
            if count <= 0 or len(self._sent) + len(self._ripe) >= MAX_UNCLAIMED:
                self._starved_s = self._starved_s or self._clock.monotonic_s()
                return
            self._starved_s = None
            self._send(count)

    def _send(self, count: int) -> None:
        size, batch = 0, list[LaneTask]()
        for task in self._held[:count]:
            size += len(task.params)
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(task)
        del self._held[: len(batch)]
        if not self._flying:
            self._heard_s = self._clock.monotonic_s()
        self._flying += len(batch)
        self._worker.send(LaneBatch(tuple(batch)))

    # from the worker ------------------------------------------------------------------------------------------------

    def on_worker(self, message: FromWorker) -> None:
        """Take answers; called from the worker's socket."""
        if not isinstance(message, LaneAnswers) or self._closed:
            return
        asked, sent, out = self._asked, self._sent, self._out
        self._heard_s = self._clock.monotonic_s()
        for answer in message.answers:
            if type(answer) is LaneResult:
                task = self._done(answer.number)
                if task is None:
                    continue
                self._flying -= 1
                if answer.code:  # nothing is owed for it
                    answer = LaneResult(answer.number, b"", 0, answer.code[:100], answer.what[:4000])
                if answer.units > self._costliest:
                    self._costliest = answer.units
                self._unclaimed_units += answer.units
                sent.append(_leaf(task, answer, self._setting))
                out.append(answer)
                self._out_bytes += len(answer.value)
            elif isinstance(answer, LaneItem) and answer.number in asked:
                out.append(answer)
                self._out_bytes += len(answer.data)
        self._news.set()
        if len(out) > MAX_OUT or self._out_bytes > MAX_OUT_BYTES:
            self._worker.pause_reading()
        if self._held:
            self._flush()

    def _done(self, number: int) -> LaneTask | None:
        task = self._asked.pop(number, None)
        if task is not None:
            self._room.change(self, -len(task.params))
        return task

    def end(self, why: str) -> None:
        """No more work: the worker or the lease is gone."""
        self._over = self._over or why
        self._news.set()

    # to the requester -----------------------------------------------------------------------------------------------

    async def answers(self) -> AsyncGenerator[Message]:
        """Pieces and answers as they come. Raises UnavailableError E1704 when the lane is ended."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._out:
                out, self._out, self._out_bytes = self._out, [], 0
                self._worker.resume_reading()
                for item in out:
                    yield item
            if self._over:
                raise self._error or fail("E1704", f"The lane ended: {self._over}.")

    async def claim_regularly(self) -> None:
        """Until cancelled: claim, and hand back what waits for money that does not come."""
        while True:
            await self._clock.sleep(CLAIM_EVERY_S)
            if self._pressed() or self._clock.monotonic_s() - self._looked_s >= CALM_S:
                self._looked_s = self._clock.monotonic_s()
                self.claim_ripe()
            if self._held:
                self._flush()
            if self._starved_s is not None and self._clock.monotonic_s() - self._starved_s >= STARVED_S:
                self._hand_back()
            self._end_the_stuck()

    def _end_the_stuck(self) -> None:
        """A worker that is held back because nobody reads its answers is not stuck."""
        if self._flying and not self._out and self._clock.monotonic_s() - self._heard_s >= SILENT_S:
            self._worker.kill(f"it said nothing for {SILENT_S:.0f} s")

    def _pressed(self) -> bool:
        """Whether claims are needed soon: for money, or before too many answers wait for them."""
        if self._held or len(self._sent) + len(self._ripe) >= PRESSED_ANSWERS:
            return True
        return PRESSED_PART * self._unclaimed_units >= self._allowance()

    def _hand_back(self) -> None:
        held, self._held, self._starved_s = self._held, [], None
        for task in held:
            self._done(task.number)
            refusal = LaneResult(task.number, b"", 0, "E1803", "The lease's cap is used up, or payment is late.")
            self._sent.append(_leaf(task, refusal, self._setting))
            self._out.append(refusal)
        self._news.set()

    # claims ---------------------------------------------------------------------------------------------------------

    def claim_ripe(self) -> None:
        """Claim the run of answered numbers that begins at the next one to claim, of those that were answered before
        the last call; then let the newer ones ripen."""
        if not self._next and self._ripe:
            self._next = min([*self._ripe, *self._asked, *(one.number for one in self._sent)])
        run: list[_Leaf] = []
        while (one := self._ripe.pop(self._next, None)) is not None:
            run.append(one)
            self._next += 1
        self._commit(run)
        self._ripe.update((one.number, one) for one in self._sent)
        self._sent.clear()
        if self._next and self._next not in self._ripe and self._next not in self._asked:
            # the requester skipped numbers, as it may between two of its own starts
            self._next = min([*self._ripe, *self._asked], default=0)

    def close(self) -> None:
        """The lane is over: have the worker drop what nobody waits for any more, and claim everything that was
        answered, in as many runs as there are. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.end("closed")
        self._room.change(self, -self.held_bytes)
        under_way = sorted(self._asked.keys() - {task.number for task in self._held})
        for start in range(0, len(under_way), MAX_LANE_BATCH):
            self._worker.send(LaneCancel(tuple(under_way[start : start + MAX_LANE_BATCH])))
        self._worker.resume_reading()
        self._ripe.update((one.number, one) for one in self._sent)
        self._sent.clear()
        run: list[_Leaf] = []
        for number in sorted(self._ripe):
            if run and number != run[-1].number + 1:
                self._commit(run)
                run = []
            run.append(self._ripe[number])
        self._commit(run)
        self._ripe.clear()

    def _commit(self, run: list[_Leaf]) -> None:
        if not run:
            return
        units = sum(one.units for one in run)
        leaves = [one.leaf for one in run]
        if self._keep is not None:
            self._keep(run[0].number, tuple(leaves))
        claimed = self._claim(run[0].number, len(run), units, merkle_root(leaves))
        claimed.add_done_callback(lambda _: self._counted(units))

    def _counted(self, units: int) -> None:
        self._unclaimed_units -= units
