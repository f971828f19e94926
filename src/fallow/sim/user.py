"""The owner of the jobs of a simulated world: speaks to the steward's node as programs on its machine do, and says each
thing until it is heard."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fallow.errors import FallowError
from fallow.node.router import OWNER, Caller
from fallow.sim.chain import digest
from fallow.sim.host import Host
from fallow.sim.plan import JobPlan
from fallow.wire.local import CancelJob, OpenJobLane, SubmitJob
from fallow.wire.messages import LaneResult, LaneTask, Message

PATIENCE_S = 15.0
AGAIN_S = 1.0
ASK_EVERY_S = 0.5


class User:
    """`answers` are those of lane tasks, by job and number."""

    def __init__(self, steward: Host, jobs: Sequence[JobPlan]) -> None:
        self._steward, self._jobs = steward, jobs
        self.answers: dict[str, dict[int, LaneResult]] = {}
        self.refused: dict[str, FallowError] = {}

    async def live(self) -> None:
        """Hand in the jobs, cancel some, ask on their lanes."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                group.create_task(self._see_through(job), name=job.name)
                if job.cancel_ms:
                    group.create_task(self._say_at(job.cancel_ms, CancelJob(digest("job", job.name))), name="cancel")

    async def _see_through(self, job: JobPlan) -> None:
        await self._say_at(job.at_ms, SubmitJob(digest("job", job.name), job.spec))
        if job.lane_tasks:
            await self._use_lane(job)

    async def _say_at(self, at_ms: int, request: Message) -> None:
        await asyncio.sleep(at_ms / 1_000)
        for attempt in itertools.count():
            await asyncio.sleep(AGAIN_S if attempt else 0.0)
            handler = self._handler(type(request), 0)
            if handler is not None and await self._heard(handler, request):
                return

    def _handler(self, kind: type[Message], which: int) -> Any:
        """What answers a kind of request now, None while the steward is down."""
        roles = self._steward.roles if self._steward.stewarding is not None else None
        return roles.owner.handlers(kind)[which] if roles is not None else None

    async def _heard(self, handler: Any, request: Message) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await handler(Caller(OWNER), request)
        except (FallowError, TimeoutError):
            return False
        except sqlite3.ProgrammingError:  # the disk went from under the call, as its machine died
            if self._handler(type(request), 0) == handler:
                raise
            return False
        return True

    async def _use_lane(self, job: JobPlan) -> None:
        """Ask everything, again on another stream when one breaks, until all is answered or the job is over."""
        name, answers = digest("job", job.name), self.answers.setdefault(job.name, {})
        while len(answers) < job.lane_tasks and name not in self._steward.town.referee.ended:
            handler = self._handler(OpenJobLane, 1)
            if handler is not None:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self._ask(job, handler, answers)
                except (FallowError, TimeoutError) as error:
                    self._steward.town.note(f"lane of {job.name}: {error}")
                except sqlite3.ProgrammingError:
                    if self._handler(OpenJobLane, 1) == handler:
                        raise
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, job: JobPlan, handler: Any, answers: dict[int, LaneResult]) -> None:
        request = OpenJobLane(digest("job", job.name), receipts=True)
        async with aclosing(handler(Caller(OWNER), request, self._questions(job, answers))) as said:
            async for message in said:
                if isinstance(message, LaneResult) and not message.code:
                    answers[message.number] = message

    async def _questions(self, job: JobPlan, answers: dict[int, LaneResult]) -> AsyncIterator[Message]:
        for number in range(1, job.lane_tasks + 1):
            if number not in answers:
                yield LaneTask(number, b"%d" % number, number, stream=False)
                await asyncio.sleep(ASK_EVERY_S)
