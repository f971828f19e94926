"""The gateway's way to the providers: one lane per served model to the owner's steward, shared by all requests.

A gateway holds the prompt and the text already sent of every answer in flight. When the lane to the steward breaks
(the steward was restarted), it opens a new one and asks again for the rest of each answer, so that a client's stream
goes on. A provider's death is the steward's business and is not seen here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from fallow.errors import FallowError, UnavailableError, fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.sdk.lanes import fail_safely
from fallow.sdk.link import LinkStream, NodeSocket
from fallow.wire.codec import decode, encode
from fallow.wire.local import LaneReceipt, OpenJobLane, PaidTask
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, Message
from fallow.wire.tasks import MAX_VALUE_BYTES

MAX_WAITING_PIECES = 4096
REOPEN_FOR_S = 60.0
REOPEN_EVERY_S = 0.25
NOBODY = "E2004"
"""No node listens on the socket: the steward is being restarted."""
NO_RECEIPT = b""


AnswerPart = str | GenerateValue | bytes


@dataclass
class PaidAnswer:
    """One request in flight, paid by the key with `secret`: at most `amount_ucr`, at `price_ucr` for 1,000 units.
    `sent` is the text that came for it so far, in `pieces` of at least a token each; `take` gives text, then the value,
    then the receipt's id, and `news` says when to ask it again. Bounded: an answer whose client does not read ends with
    E1803 after what was kept for it."""

    task: Generate
    seed: int
    secret: str
    amount_ucr: int
    price_ucr: int
    sent: str = ""
    pieces: int = 0
    value: GenerateValue | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _inbox: deque[AnswerPart] = field(default_factory=deque[AnswerPart])
    _error: FallowError | None = None

    def request(self, number: int) -> PaidTask:
        """What to ask for now: the rest, when some of it came already. What came is booked by itself then, if it is
        owed at all."""
        task = self.task
        if self.sent:
            left = max(1, task.max_tokens - self.pieces)
            task = msgspec.structs.replace(task, resume=self.sent, max_tokens=left)
        return PaidTask(number, encode(task), self.seed, self.secret, self.amount_ucr, self.price_ucr)

    def put(self, item: AnswerPart, pieces: int = 1) -> bool:
        """A text holds `pieces`. -> False when the client has fallen too far behind."""
        if isinstance(item, str):
            if len(self._inbox) >= MAX_WAITING_PIECES:
                self.fail(fail("E1803", "The answer was not read fast enough."))
                return False
            self.sent += item
            self.pieces += pieces
        elif isinstance(item, GenerateValue):
            # a resumed answer's value holds its last part only, and so do its receipt and its commitment to the logits
            text = self.sent or item.text
            logits = item.logits if text == item.text else b""
            self.value = item = msgspec.structs.replace(item, text=text, logits=logits)
        self._inbox.append(item)
        self.news.set()
        return True

    def fail(self, error: FallowError) -> None:
        """Nothing more will come; what came already can still be read."""
        self._error = self._error or error
        self.news.set()

    def take(self) -> AnswerPart | None:
        """What came next; None while nothing has. Raises the error that ended the answer."""
        if self._inbox:
            return self._inbox.popleft()
        if self._error is not None:
            raise self._error
        return None


class ModelLane:
    """The lane of one served model. `run` must be running in a task for `ask` to get answers."""

    def __init__(self, link: NodeSocket, job: bytes) -> None:
        self._link, self._job = link, job
        self._answers: dict[int, PaidAnswer] = {}
        self._stream: LinkStream | None = None
        self._last = 0
        self._over: FallowError | None = None

    async def run(self) -> None:
        """Keep the lane open as long as answers may come; ends when the model's job has ended or the steward stays
        away for REOPEN_FOR_S, after failing what is in flight."""
        failures = 0
        while self._over is None:
            try:
                async with self._link.open(OpenJobLane(self._job, receipts=True)) as stream:
                    await self._ask_again(stream)
                    async for message in stream:
                        failures = 0
                        await self._take(message)
            except FallowError as error:
                failures += 1
                away = isinstance(error, UnavailableError) or error.code == NOBODY
                if not away or failures * REOPEN_EVERY_S > REOPEN_FOR_S:
                    self._over = error
            finally:
                self._stream = None
            if self._over is None:
                await asyncio.sleep(REOPEN_EVERY_S)
        for answer in self._answers.values():
            answer.fail(self._over)
        self._answers.clear()

    async def _ask_again(self, stream: LinkStream) -> None:
        asked = list(self._answers.items())
        self._stream = stream
        for number, answer in asked:
            if answer.value is None:
                await stream.send(answer.request(number))
            else:  # only its receipt was still to come, and is lost with the lane
                del self._answers[number]
                answer.put(NO_RECEIPT)

    async def _take(self, message: Message | bytes) -> None:
        match message:
            case LaneItem(number, data, pieces):
                answer = self._answers.get(number)
                if answer is not None and not answer.put(data.decode("utf-8", "replace"), pieces):
                    await self._stop(number)
            case LaneResult(number, value, _, code, what):
                if (answer := self._answers.get(number)) is not None:
                    if code:
                        del self._answers[number]
                        answer.fail(fail_safely(code, what))
                    else:
                        answer.put(decode(GenerateValue, value, MAX_VALUE_BYTES))
            case LaneReceipt(number, receipt):
                if (answer := self._answers.pop(number, None)) is not None:
                    answer.put(receipt)
            case _:
                pass

    async def _stop(self, number: int) -> None:
        if self._answers.pop(number, None) is not None and self._stream is not None:
            with suppress(FallowError):  # the lane has just broken, and the work on it with it
                await self._stream.send(LaneStop(number))

    @asynccontextmanager
    async def ask(self, answer: PaidAnswer) -> AsyncGenerator[None]:
        """Have an answer made; leaving the block early stops the work on it. Raises what ended the lane when it is
        over."""
        if self._over is not None:
            raise self._over
        self._last += 1
        number = self._last
        self._answers[number] = answer
        try:
            if self._stream is not None:
                with suppress(FallowError):  # asked again on the next lane
                    await self._stream.send(answer.request(number))
            yield
        finally:
            await self._stop(number)
