"""The HTTP door: OpenAI's /v1/models, /v1/chat/completions and /v1/completions over the models that the owner's steward
serves. Stateless: keys and budgets live with the steward, so that several gateways can stand in front of one, and
any of them may die.

Defends against: bodies that are large, slow or many, and strangers who would like to know what is served here: without
a key every question is answered alike. `gateway/server.py` defends the connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fallow.errors import FallowError, fail
from fallow.gateway.lanes import AnswerPart, ModelLane, PaidAnswer
from fallow.gateway.replies import ReplyFormat, error_reply
from fallow.gateway.requests import MAX_BODY_BYTES, ChatRequest, CompletionRequest, parse, prompt_bytes
from fallow.kinds.generate.tasks import GenerateValue
from fallow.node.held import Held
from fallow.ports import Clock, Entropy
from fallow.sdk.link import NodeSocket
from fallow.units import cost_ucr, to_text
from fallow.wire.local import CheckKey, ListModels, ModelList, ServedModel

_HELD = "fallow.held"
CALL_S = 10.0
FIRST_ANSWER_S = 600.0
MODELS_FRESH_S, MODELS_OLD_S, MODELS_GOOD_S = 1.0, 5.0, 10.0
"""Fresh enough to be shown; old enough to be asked for again beside a request; good enough to begin a request with."""
MAX_SECRET_CHARS = 200
BODY_S = 30.0
"""How long a client may take to send a request's body."""
CHECKED_AT_ONCE = 64
"""Keys that the steward is asked about at once; each costs a socket."""


class Gateway:
    """What the routes share: the link to the steward, a short memory of its models, and a lane per model."""

    def __init__(self, link: NodeSocket, group: asyncio.TaskGroup, clock: Clock, entropy: Entropy) -> None:
        self._link, self._group, self.clock, self.entropy = link, group, clock, entropy
        self._models: tuple[ServedModel, ...] = ()
        self._models_at = float("-inf")
        self._lanes: dict[bytes, ModelLane] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._checks = asyncio.Semaphore(CHECKED_AT_ONCE)

    async def models(self) -> tuple[ServedModel, ...]:
        """What is served now, at most a second old."""
        if self._age_s() > MODELS_FRESH_S:
            found = await self._link.call(ListModels(), CALL_S)
            assert isinstance(found, ModelList)
            self._models, self._models_at = found.models, self.clock.monotonic_s()
        return self._models

    async def model(self, name: str) -> ServedModel:
        """By what was served a moment ago, so that no request waits for the list: a lane whose model has gone says so
        itself. Raises UsageError E1901 for a model that is not served."""
        known = [model for model in self._models if model.name == name]
        if known and self._age_s() <= MODELS_GOOD_S:
            self._refresh()
            return known[0]
        for model in await self.models():
            if model.name == name:
                return model
        raise fail("E1901", f"The model {name!r} is not served here.")

    def _age_s(self) -> float:
        return self.clock.monotonic_s() - self._models_at

    def _refresh(self) -> None:
        if self._age_s() > MODELS_OLD_S and self._refreshing is None:
            self._refreshing = self.spawn(self._ask_models(), "models")

    async def _ask_models(self) -> None:
        try:
            await self.models()
        except FallowError:  # the steward is away; the next request will hear of it
            self._models_at = float("-inf")
        finally:
            self._refreshing = None

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

    async def check(self, secret: str) -> None:
        """Raises UsageError E1902 for a wrong key."""
        async with self._checks:
            await self._link.call(CheckKey(secret), CALL_S)


def _secret(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret:
        raise fail("E1902", "No API key was sent.", next_step="Send the header Authorization: Bearer KEY.")
    return secret.strip()[:MAX_SECRET_CHARS]


async def _body(request: Request) -> bytes:
    """The body, read no further than the limit: a client may announce any length, or none. Counted until the request
    is answered."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                data += piece
                if len(data) > MAX_BODY_BYTES:
                    raise fail("E1903", f"The request is longer than {MAX_BODY_BYTES} bytes.")
                request.scope[_HELD].set(len(data))
    except TimeoutError:
        raise fail("E1904", f"The request's body did not come within {BODY_S:g} s.") from None
    return bytes(data)


async def _next(answer: PaidAnswer) -> AnswerPart:
    try:
        async with asyncio.timeout(FIRST_ANSWER_S):  # wait_for would make a task for each piece
            return await answer.next()
    except TimeoutError:
        raise fail("E1802", f"No provider answered within {FIRST_ANSWER_S:g} s.") from None


async def _complete(request: Request, chat: bool) -> Response:
    gateway: Gateway = request.app.state.gateway
    secret = _secret(request)
    asked = parse(ChatRequest if chat else CompletionRequest, await _body(request))
    try:
        model = await gateway.model(asked.model)
        task = asked.task(model.context_tokens)
        if task.max_tokens >= model.context_tokens:
            raise fail("E1903", f"max_tokens is {task.max_tokens}, the model holds {model.context_tokens} tokens.")
    except FallowError:
        await gateway.check(secret)  # what is served here is not for strangers to find out
        raise
    most = min(prompt_bytes(task), model.context_tokens) + task.max_tokens
    seed = asked.seed if asked.seed is not None else int.from_bytes(gateway.entropy.draw(7))
    answer = PaidAnswer(
        task, seed & ((1 << 63) - 1), secret, cost_ucr(most, model.price_ucr), model.price_ucr
    )  # fmt: skip
    identifier = ("chatcmpl-" if chat else "cmpl-") + gateway.entropy.draw(12).hex()
    shape = ReplyFormat(chat, identifier, model.name, gateway.clock.now_ms() // 1000)
    lane = gateway.lane(model)
    if asked.stream:
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        pieces = _stream(lane, answer, shape, with_usage)
        return _Events(gateway, answer, await anext(pieces), pieces)
    value, receipt = await _whole(lane, answer)
    return JSONResponse(shape.whole(value, receipt), headers={"x-fallow-receipt": receipt})


class _Events(Response):
    """A stream of events as a response. Starlette's own keeps two tasks and a cancel scope for each, which costs more
    than all the events of a short answer. A client that leaves fails its `answer`, and `pieces` end with it."""

    media_type = "text/event-stream"

    def __init__(self, gateway: Gateway, answer: PaidAnswer, first: bytes, pieces: AsyncGenerator[bytes]) -> None:
        self._gateway, self._answer, self._first, self._pieces = gateway, answer, first, pieces
        self.status_code, self.background = 200, None
        self.init_headers({"content-type": "text/event-stream; charset=utf-8"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = self._gateway.spawn(self._until_left(receive), "client")
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watch.cancel()
            await self._pieces.aclose()

    async def _until_left(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._answer.fail(fail("E1801", "The client left."))


async def _whole(lane: ModelLane, answer: PaidAnswer) -> tuple[GenerateValue, str]:
    """-> the finished answer and its receipt's id."""
    async with lane.ask(answer):
        while not isinstance(item := await _next(answer), GenerateValue):
            pass
        return item, await _receipt(answer)


async def _receipt(answer: PaidAnswer) -> str:
    """As text; "" for one that was lost with a steward that was killed just then."""
    receipt = await _next(answer)
    assert isinstance(receipt, bytes), "the receipt comes last"
    return to_text("receipt", receipt) if receipt else ""


async def _stream(lane: ModelLane, answer: PaidAnswer, shape: ReplyFormat, with_usage: bool) -> AsyncGenerator[bytes]:
    """Server-sent events. The first is only made when the first token is there, so that an error before it still has
    its own HTTP status."""
    async with lane.ask(answer):
        item = await _next(answer)
        yield shape.opening() + (shape.piece(item) if isinstance(item, str) else b"")
        try:
            while not isinstance(item, GenerateValue):
                item = await _next(answer)
                if isinstance(item, str):
                    yield shape.piece(item)
            yield shape.closing(item, await _receipt(answer), with_usage)
        except FallowError as error:
            yield shape.broken(error)


class _Weighed:
    """Counts the bytes of requests under way, by the address that they came from."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._held = app, Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = scope[_HELD] = self._held.call((scope.get("client") or ("",))[0])
        try:
            await self._app(scope, receive, send)
        finally:
            call.close()


async def _list(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    await gateway.check(_secret(request))
    data = [
        {"id": m.name, "object": "model", "created": m.created_ms // 1000, "owned_by": to_text("job", m.job),
         "context_length": m.context_tokens, "price_ucr": m.price_ucr}
        for m in await gateway.models()
    ]  # fmt: skip
    return JSONResponse({"object": "list", "data": data})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FallowError)
    status, body = error_reply(error)
    return JSONResponse(body, status)


async def _not_here(request: Request, error: Exception) -> Response:
    """OpenAI's clients read the body of any refusal; a path that is not answered has one like all others."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path} is not answered here."
    refused = fail("E1904", what[:300], next_step="Use /v1/models, /v1/chat/completions or /v1/completions.")
    return JSONResponse(error_reply(refused)[1], error.status_code, error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _health(_request: Request) -> Response:
    return JSONResponse({"ok": True})


def create_app(link: NodeSocket, clock: Clock, entropy: Entropy) -> Starlette:
    """The ASGI application; `link` is the steward's local socket."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            gateway = app.state.gateway = Gateway(link, group, clock, entropy)
            try:
                yield
            finally:
                gateway.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", partial(_complete, chat=True), methods=["POST"]),
            Route("/v1/completions", partial(_complete, chat=False), methods=["POST"]),
            Route("/v1/models", _list, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
        ],
        middleware=[Middleware(_Weighed)],
        exception_handlers={FallowError: _refused, ClientDisconnect: _gone, HTTPException: _not_here},
        lifespan=lifespan,
    )
