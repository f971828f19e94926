"""The gateway's way to the providers: one lane per served model to the owner's steward, shared by all requests.

A gateway holds the prompt and the text already sent of every answer in flight. When the lane to the steward breaks
(the steward was restarted), it opens a new one and asks again for the rest of each answer, so that a client's stream
goes on. A provider's death is the steward's business and is not seen here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from fallow.errors import FallowError, UnavailableError, fail
from fallow.sdk.link import Link, LinkStream
from fallow.wire.codec import decode, encode
from fallow.wire.local import LaneReceipt, OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message
from fallow.wire.tasks import MAX_VALUE_BYTES, Generate, GenerateValue

MAX_WAITING_PIECES = 4096
REOPEN_FOR_S = 60.0
REOPEN_EVERY_S = 0.25


@dataclass
class Answer:
    """One request in flight. `sent` is the text that the client has; `inbox` carries text, then the value, then the
    receipt's id, or an error. The inbox is bounded: a client that does not read is dropped, not buffered for."""

    task: Generate
    seed: int
    sent: str = ""
    inbox: asyncio.Queue[str | GenerateValue | bytes | FallowError] = field(
        default_factory=lambda: asyncio.Queue(MAX_WAITING_PIECES)
    )

    def request(self, number: int) -> LaneTask:
        task = msgspec.structs.replace(self.task, resume=self.sent) if self.sent else self.task
        return LaneTask(number, encode(task), self.seed, stream=True)


class ModelLane:
    """The lane of one served model. `run` must be running in a task for `ask` to get answers."""

    def __init__(self, link: Link, job: bytes) -> None:
        self._link, self._job = link, job
        self._answers: dict[int, Answer] = {}
        self._stream: LinkStream | None = None
        self._last = 0

    async def run(self) -> None:
        """Keep the lane open as long as answers may come; ends when the model's job has ended or the steward stays
        away for REOPEN_FOR_S, after failing what is in flight."""
        failures = 0
        while True:
            try:
                async with self._link.open(OpenJobLane(self._job, receipts=True)) as stream:
                    self._stream = stream
                    for number, answer in list(self._answers.items()):
                        await stream.send(answer.request(number))
                    async for message in stream:
                        failures = 0
                        await self._take(message)
            except UnavailableError as error:
                if (failures := failures + 1) * REOPEN_EVERY_S > REOPEN_FOR_S:
                    return self._fail_all(error)
            except FallowError as error:
                return self._fail_all(error)
            finally:
                self._stream = None
            await asyncio.sleep(REOPEN_EVERY_S)

    def _fail_all(self, error: FallowError) -> None:
        for answer in self._answers.values():
            _put(answer, error)
        self._answers.clear()

    async def _take(self, message: Message | bytes) -> None:
        match message:
            case LaneItem(number, data):
                if (answer := self._answers.get(number)) is not None:
                    text = data.decode("utf-8", "replace")
                    answer.sent += text
                    if not _put(answer, text):
                        await self._stop(number)
            case LaneResult(number, value, _, code, what):
                if (answer := self._answers.get(number)) is not None:
                    _put(answer, fail(code, what) if code else decode(GenerateValue, value, MAX_VALUE_BYTES))
                    if code:
                        del self._answers[number]
            case LaneReceipt(number, receipt):
                if (answer := self._answers.pop(number, None)) is not None:
                    _put(answer, receipt)
            case _:
                pass

    async def _stop(self, number: int) -> None:
        if self._answers.pop(number, None) is not None and self._stream is not None:
            await self._stream.send(LaneStop(number))

    @asynccontextmanager
    async def ask(self, task: Generate, seed: int) -> AsyncGenerator[Answer]:
        """Start an answer; leaving the block early stops the work on it."""
        self._last += 1
        number, answer = self._last, Answer(task, seed)
        self._answers[number] = answer
        try:
            if self._stream is not None:
                await self._stream.send(answer.request(number))
            yield answer
        finally:
            await self._stop(number)


def _put(answer: Answer, item: str | GenerateValue | bytes | FallowError) -> bool:
    try:
        answer.inbox.put_nowait(item)
    except asyncio.QueueFull:
        return False
    return True
