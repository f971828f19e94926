"""A steward's local socket with a made-up model behind it, for tests of the HTTP door: it counts down, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError, fail
from fallow.gateway.server import claim_port, run_gateway
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.node.api_keys import ApiKeys, serve_api_keys
from fallow.node.local_socket import local_socket
from fallow.node.router import Caller, Router
from fallow.sdk.home import socket_path
from fallow.units import cost_ucr
from fallow.wire import local
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message

MODEL = local.ServedModel("countdown", bytes(32), 512, 1, 1_700_000_000_000, 1_000_000)
WORDS = [f"{n} " for n in range(9, -1, -1)]


class Steward:
    """What the door sees of a node. `words` is what it says; `fail_with` makes every answer an error; `break_after`
    ends the lane once, after so many pieces, as a steward that is killed would; `stopped` collects numbers that nobody
    waits for any more."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = SqliteEventLog(home / "log.db")
        self.keys = ApiKeys(self.log, SystemClock(), SystemEntropy())
        self.fail_with = ""
        self.words = WORDS
        self.break_after = -1
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.asked: list[Generate] = []
        self.seeds: list[int] = []
        self.stopped: list[int] = []

    @property
    def hang(self) -> bool:
        """Whether answers stand still after their first piece."""
        return not self.go_on.is_set()

    @hang.setter
    def hang(self, stand_still: bool) -> None:
        self.go_on.clear() if stand_still else self.go_on.set()

    def router(self) -> Router:
        router = Router()
        serve_api_keys(router, self.keys)

        @router.on(local.ListModels)
        async def models(_caller: Caller, _request: local.ListModels) -> Message:
            return local.ModelList((MODEL,))

        @router.stream(local.OpenJobLane)
        async def lane(
            _caller: Caller, _request: local.OpenJobLane, inputs: AsyncIterator[Message]
        ) -> AsyncIterator[Message]:
            async for message in inputs:
                if isinstance(message, local.PaidTask):
                    async for answer in self._paid(message):
                        yield answer
                elif isinstance(message, LaneStop):
                    self.stopped.append(message.number)

        return router

    async def _paid(self, task: local.PaidTask) -> AsyncIterator[Message]:
        try:
            operation = self.keys.reserve(task.secret, task.amount_ucr)
        except FallowError as error:
            yield LaneResult(task.number, b"", 0, error.code, error.what)
            return
        units = 0
        async for answer in self._answer(LaneTask(task.number, task.params, task.seed, stream=True)):
            units = answer.units if isinstance(answer, LaneResult) else units
            yield answer
        self.keys.post(operation, cost_ucr(units, task.price_ucr))
        await self.keys.write()

    async def _answer(self, task: LaneTask) -> AsyncIterator[Message]:
        asked = decode(Generate, task.params)
        self.asked.append(asked)
        self.seeds.append(task.seed)
        if self.fail_with:
            yield LaneResult(task.number, b"", 0, self.fail_with, "as asked by the test")
            return
        said = len(asked.resume.split())
        words = self.words[said:][: asked.max_tokens]
        for word in words:
            if self.break_after == 0:
                self.break_after = -1
                raise fail("E1801", "the steward is killed here")
            self.break_after -= 1 if self.break_after > 0 else 0
            yield LaneItem(task.number, word.encode())
            await self.go_on.wait()
        finish = "length" if asked.max_tokens < len(self.words) - said else "stop"
        # as engines do: what was resumed was read, and the commitment is to the logits of what was made here
        value = GenerateValue("".join(words), finish, 7 + said, len(words), b"l" * 32)
        yield LaneResult(task.number, encode(value), 7 + said + len(words))
        yield local.LaneReceipt(task.number, bytes([9]) * 32)


@asynccontextmanager
async def door(tmp_path: Path, origins: Sequence[str] = ()) -> AsyncGenerator[tuple[Steward, str, str]]:
    """A running gateway in front of the stub; -> the stub, the base URL, and an API key with 1,000 credits."""
    steward = Steward(tmp_path)
    listener = claim_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    try:
        async with local_socket(tmp_path, steward.router()), asyncio.TaskGroup() as group:
            server = group.create_task(run_gateway(socket_path(tmp_path), listener, origins))
            yield steward, url, steward.keys.make("test", 1_000_000_000)
            steward.go_on.set()
            server.cancel()
    finally:
        steward.log.close()
