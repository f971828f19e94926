"""The HTTP application: every door of `doors/registry.py` over the models that the owner's steward serves. Stateless:
keys and budgets live with the steward, so that several gateways can stand in front of one, and any of them may die.

Defends against: strangers who would like to know what is served here: without a key every question is answered alike.
`bodies.py` defends what is read, `server.py` the connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fallow.errors import FallowError, fail
from fallow.gateway.answers import Answers, Streamed, stream, until_left, whole
from fallow.gateway.bodies import read_body, secret_of
from fallow.gateway.doors.door import Door, ModelRequest, Naming
from fallow.gateway.doors.openai import error_reply
from fallow.gateway.doors.registry import DOORS
from fallow.gateway.lanes import ModelLane, PaidAnswer
from fallow.gateway.listing import ROUTES
from fallow.gateway.models import Models
from fallow.gateway.openapi import described
from fallow.kinds.generate.tasks import Generate
from fallow.node.held import Held
from fallow.ports import Clock, Entropy
from fallow.sdk.link import NodeSocket
from fallow.units import cost_ucr
from fallow.wire.codec import decode, encode
from fallow.wire.local import ServedModel
from fallow.wire.tasks import MAX_PARAMS_BYTES

_HELD, _SERIAL = "fallow.held", "fallow.serial"
SEED_MASK = (1 << 63) - 1
TURN_TOKENS = 16
"""What a chat template adds to a turn, reckoned high."""


class Gateway:
    """What the routes share: the link to the steward, and a lane per model."""

    def __init__(self, link: NodeSocket, group: asyncio.TaskGroup, clock: Clock, entropy: Entropy) -> None:
        self._link, self._group, self.clock, self.entropy = link, group, clock, entropy
        self._lanes: dict[bytes, ModelLane] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.models = Models(link, clock, self.spawn)

    def lane(self, model: ServedModel) -> ModelLane:
        """The model's lane, opened when first needed."""
        lane = self._lanes.get(model.job)
        if lane is None:
            lane = self._lanes[model.job] = ModelLane(self._link, model.job)
            self.spawn(self._keep(model.job, lane), f"lane {model.name}")
        return lane

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something beside the requests, for as long as the gateway lives."""
        task = self._group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _keep(self, job: bytes, lane: ModelLane) -> None:
        try:
            await lane.run()
        finally:
            self._lanes.pop(job, None)

    def close(self) -> None:
        """Stop the lanes, and the work on them."""
        for task in self._running:
            task.cancel()


async def _answer(request: Request, door: Door) -> Response:
    """Answer a request, or refuse it as the clients of its door read it."""
    gateway: Gateway = request.app.state.gateway
    try:
        secret = secret_of(request)
        asked = door.read(await read_body(request, request.scope[_HELD].set))
        try:
            model = await gateway.models.find(asked.model)
            tasks = _tasks(asked, model)
        except FallowError:
            await gateway.models.check(secret)  # what is served here is not for strangers to find out
            raise
        return await _made(request, gateway, asked, _paid(gateway, asked, model, tasks, secret), model)
    except FallowError as error:
        status, body = door.refusal(error)
        return JSONResponse(body, status)


def _tasks(asked: ModelRequest, model: ServedModel) -> list[Generate]:
    """The work, whose bounds are those of the wire. Errors: E1903 for more than the model holds, E1904."""
    tasks = asked.tasks(model.context_tokens)
    for task in tasks:
        if task.max_tokens >= model.context_tokens:
            raise fail("E1903", f"max_tokens is {task.max_tokens}, the model holds {model.context_tokens} tokens.")
        try:
            decode(Generate, encode(task), MAX_PARAMS_BYTES)
        except FallowError as error:
            raise fail("E1904", "The request asks for more than a task can hold.", cause=error.what) from error
    return tasks


def _paid(
    gateway: Gateway, asked: ModelRequest, model: ServedModel, tasks: Sequence[Generate], secret: str
) -> list[PaidAnswer]:
    """Alike answers have seeds that follow each other."""
    first = asked.seed if asked.seed is not None else int.from_bytes(gateway.entropy.draw(7))
    news = asyncio.Event()
    return [
        PaidAnswer(task, (first + number) & SEED_MASK, secret, _most_ucr(task, model), model.price_ucr, news=news)
        for task in tasks
        for number in range(asked.alike)
    ]


def _most_ucr(task: Generate, model: ServedModel) -> int:
    """The most that an answer can cost, before anything is tokenized: no tokenizer in use makes more than one token of
    a byte, and a template adds a few per turn."""
    said = len(task.prompt.encode()) + len(task.tools.encode()) + 64
    said += sum(len((turn.content + turn.more).encode()) + TURN_TOKENS for turn in task.turns)
    return cost_ucr(min(said, model.context_tokens) + task.max_tokens, model.price_ucr)


async def _made(
    request: Request, gateway: Gateway, asked: ModelRequest, paid: Sequence[PaidAnswer], model: ServedModel
) -> Response:
    answers = Answers(paid, gateway.lane(model))
    reply = asked.reply(Naming(request.scope[_SERIAL], model.name, gateway.clock.now_ms()))
    watch = gateway.spawn(until_left(request.receive, answers), "client")
    with ExitStack() as stack:
        stack.callback(watch.cancel)
        if not asked.stream:
            return await whole(answers, reply)
        events = stream(answers, reply)
        return Streamed(await anext(events), events, reply.media_type, stack.pop_all().close)


class _Counted:
    """Counts the bytes of requests under way, by the address that they came from, and gives each an id of its own."""

    def __init__(self, app: ASGIApp, entropy: Entropy) -> None:
        self._app, self._held, self._entropy = app, Held(), entropy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        serial = scope[_SERIAL] = self._entropy.draw(12).hex()
        call = scope[_HELD] = self._held.call((scope.get("client") or ("",))[0])

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", f"req_{serial}".encode())]
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            call.close()


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FallowError)
    status, body = error_reply(error)
    return JSONResponse(body, status)


async def _not_here(request: Request, error: Exception) -> Response:
    """OpenAI's clients read the body of any refusal; a path that is not answered has one like all others."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path} is not answered here."
    paths = ", ".join(door.path for door in DOORS)
    refused = fail("E1904", what[:300], next_step=f"Use /v1/models, {paths}.")
    return JSONResponse(error_reply(refused)[1], error.status_code, error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _health(_request: Request) -> Response:
    return JSONResponse({"ok": True})


async def _described(_request: Request) -> Response:
    return JSONResponse(described())


def create_app(link: NodeSocket, clock: Clock, entropy: Entropy, origins: Sequence[str] = ()) -> Starlette:
    """The ASGI application; `link` is the steward's local socket, `origins` the web pages that may ask from a browser
    ("*" for all)."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            gateway = app.state.gateway = Gateway(link, group, clock, entropy)
            app.state.models = gateway.models
            try:
                yield
            finally:
                gateway.close()

    browsers = Middleware(
        CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"],
        expose_headers=["x-fallow-receipt", "x-request-id"],
    )  # fmt: skip
    return Starlette(
        routes=[
            *(Route(door.path, partial(_answer, door=door), methods=["POST"]) for door in DOORS),
            *ROUTES,
            Route("/health", _health, methods=["GET"]),
            Route("/openapi.json", _described, methods=["GET"]),
        ],
        middleware=[Middleware(_Counted, entropy=entropy), *([browsers] if origins else [])],
        exception_handlers={FallowError: _refused, ClientDisconnect: _gone, HTTPException: _not_here},
        lifespan=lifespan,
    )
