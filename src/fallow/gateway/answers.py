"""The answers to one request, side by side on a model's lane, and how they reach the client: whole or as a stream. A
client that leaves, in whichever way it asked, ends the work on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fallow.errors import FallowError, fail
from fallow.gateway.doors.door import Finished, Reply
from fallow.gateway.lanes import AnswerPart, ModelLane, PaidAnswer
from fallow.kinds.generate.tasks import GenerateValue
from fallow.units import to_text

FIRST_ANSWER_S = 600.0


class Answers:
    """`answers` must share one `news`."""

    def __init__(self, answers: Sequence[PaidAnswer], lane: ModelLane) -> None:
        self._answers, self._lane, self._news = answers, lane, answers[0].news

    @asynccontextmanager
    async def asked(self) -> AsyncGenerator[None]:
        """Have them made; leaving the block stops the work on those that are not there yet."""
        async with AsyncExitStack() as stack:
            for answer in self._answers:
                await stack.enter_async_context(self._lane.ask(answer))
            yield

    def leave(self) -> None:
        """Nobody waits any more."""
        for answer in self._answers:
            answer.fail(fail("E1801", "The client left."))

    async def parts(self) -> AsyncGenerator[tuple[int, str | Finished]]:
        """Pieces of text and ends, each with its answer's index, until all have ended. Raises what ended one."""
        values: dict[int, GenerateValue] = {}
        left = len(self._answers)
        while left:
            index, item = await self._next()
            if isinstance(item, GenerateValue):
                values[index] = item
            elif isinstance(item, bytes):  # the receipt comes last; without one it was lost with a steward that died
                left -= 1
                yield index, Finished(values[index], to_text("receipt", item) if item else "")
            else:
                yield index, item

    async def _next(self) -> tuple[int, AnswerPart]:
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):  # wait_for would make a task for each piece
                while True:
                    for index, answer in enumerate(self._answers):
                        if (item := answer.take()) is not None:
                            return index, item
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise fail("E1802", f"No provider answered within {FIRST_ANSWER_S:g} s.") from None


async def until_left(receive: Receive, answers: Answers) -> None:
    """Watch a client that has asked, and let its answers go when it does."""
    while (await receive())["type"] != "http.disconnect":
        pass
    answers.leave()


async def whole(answers: Answers, reply: Reply) -> Response:
    """The reply when everything is there."""
    async with answers.asked():
        found = {index: item async for index, item in answers.parts() if isinstance(item, Finished)}
    ordered = [found[index] for index in sorted(found)]
    headers = {"x-fallow-receipt": ",".join(answer.receipt for answer in ordered)}
    return JSONResponse(reply.whole(ordered), headers=headers)


async def stream(answers: Answers, reply: Reply) -> AsyncGenerator[bytes]:
    """The reply as it comes. The first event is only made when the first piece is there, so that an error before it
    still has its own HTTP status."""
    found: dict[int, Finished] = {}
    async with answers.asked(), aclosing(answers.parts()) as parts:
        first = await anext(parts)
        yield reply.opening() + _shown(reply, first, found)
        try:
            async for part in parts:
                yield _shown(reply, part, found)
            yield reply.closing([found[index] for index in sorted(found)])
        except FallowError as error:
            yield reply.broken(error)


def _shown(reply: Reply, part: tuple[int, str | Finished], found: dict[int, Finished]) -> bytes:
    index, item = part
    if isinstance(item, str):
        return reply.piece(index, item)
    found[index] = item
    return reply.ended(index, item)


class Streamed(Response):
    """A stream as a response; `over` is called at its end. Starlette's own keeps two tasks and a cancel scope for each,
    which costs more than all the events of a short answer."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes], media_type: str, over: Callable[[], None]) -> None:
        self._first, self._rest, self._over = first, rest, over
        self.status_code, self.background = 200, None
        self.init_headers({"content-type": media_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._rest:
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._over()
            await self._rest.aclose()
