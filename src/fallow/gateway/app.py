"""The HTTP door: OpenAI's /v1/models, /v1/chat/completions and /v1/completions over the models that the owner's steward
serves. Stateless: keys and budgets live with the steward, so that several gateways can stand in front of one, and
any of them may die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fallow.errors import FallowError, fail
from fallow.gateway.lanes import Answer, Item, ModelLane
from fallow.gateway.replies import Shape, error_reply
from fallow.gateway.requests import (
    MAX_BODY_BYTES,
    ChatRequest,
    CompletionRequest,
    parse_chat,
    parse_completion,
    prompt_bytes,
)
from fallow.ports import Clock, Entropy
from fallow.sdk.link import Link
from fallow.units import cost_ucr, to_text
from fallow.wire.local import ListModels, ModelList, PostKey, ReserveKey, ServedModel
from fallow.wire.tasks import Generate, GenerateValue

CALL_S = 10.0
FIRST_ANSWER_S = 600.0
MODELS_FRESH_S = 1.0
POST_TRIES, POST_EVERY_S = 20, 0.5


class Gateway:
    """What the routes share: the link to the steward, a short memory of its models, and a lane per model."""

    def __init__(self, link: Link, group: asyncio.TaskGroup, clock: Clock, entropy: Entropy) -> None:
        self._link, self._group, self.clock, self.entropy = link, group, clock, entropy
        self._models: tuple[ServedModel, ...] = ()
        self._models_at = float("-inf")
        self._lanes: dict[bytes, ModelLane] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def models(self) -> tuple[ServedModel, ...]:
        """What is served now, at most a second old."""
        if self.clock.monotonic_s() - self._models_at > MODELS_FRESH_S:
            found = await self._link.call(ListModels(), CALL_S)
            assert isinstance(found, ModelList)
            self._models, self._models_at = found.models, self.clock.monotonic_s()
        return self._models

    async def model(self, name: str) -> ServedModel:
        """Raises UsageError E1901 for a model that is not served."""
        for model in await self.models():
            if model.name == name:
                return model
        raise fail("E1901", f"The model {name!r} is not served here.")

    def lane(self, model: ServedModel) -> ModelLane:
        """The model's lane, opened when first needed."""
        lane = self._lanes.get(model.job)
        if lane is None:
            lane = self._lanes[model.job] = ModelLane(self._link, model.job)
            self._running.add(self._group.create_task(self._keep(model.job, lane), name=f"lane {model.name}"))
        return lane

    async def _keep(self, job: bytes, lane: ModelLane) -> None:
        try:
            await lane.run()
        finally:
            self._lanes.pop(job, None)
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def close(self) -> None:
        """Stop the lanes; what is being booked is still booked, unless the steward is away."""
        for task in self._running:
            task.cancel()

    async def reserve(self, secret: str, amount_ucr: int) -> bytes:
        """Set the most that a request can cost aside on its key; -> the operation to book it with."""
        operation = self.entropy.draw(32)
        await self._link.call(ReserveKey(secret[:200], amount_ucr, operation), CALL_S)
        return operation

    def book(self, operation: bytes, amount_ucr: int) -> asyncio.Task[None]:
        """Book a request at what it cost, in a task that outlives the request: a client that goes away cancels its own
        request, and must not get its money back by that."""
        return self._group.create_task(self._post(operation, amount_ucr), name="booking")

    async def _post(self, operation: bytes, amount_ucr: int) -> None:
        for _ in range(POST_TRIES):
            try:
                await self._link.call(PostKey(operation, amount_ucr), CALL_S)
                return
            except FallowError:  # the steward is being restarted; the reservation stands until then, or lapses
                await self.clock.sleep(POST_EVERY_S)


def _secret(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret:
        raise fail("E1902", "No API key was sent.", next_step="Send the header Authorization: Bearer KEY.")
    return secret.strip()


async def _body(request: Request) -> bytes:
    """The body, read no further than the limit: a client may announce any length, or none."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise fail("E1903", f"The request is longer than {MAX_BODY_BYTES} bytes.")
    return bytes(data)


async def _next(answer: Answer) -> Item:
    try:
        async with asyncio.timeout(FIRST_ANSWER_S):  # wait_for would make a task for each piece
            return await answer.next()
    except TimeoutError:
        raise fail("E1802", f"No provider answered within {FIRST_ANSWER_S:g} s.") from None


async def _complete(request: Request, chat: bool) -> Response:
    gateway: Gateway = request.app.state.gateway
    secret = _secret(request)
    asked: ChatRequest | CompletionRequest = (parse_chat if chat else parse_completion)(await _body(request))
    model = await gateway.model(asked.model)
    task = asked.task(model.context_tokens)
    if task.max_tokens >= model.context_tokens:
        raise fail("E1903", f"max_tokens is {task.max_tokens}, the model holds {model.context_tokens} tokens.")
    most = min(prompt_bytes(task), model.context_tokens) + task.max_tokens
    operation = await gateway.reserve(secret, cost_ucr(most, model.price_ucr))
    seed = asked.seed if asked.seed is not None else int.from_bytes(gateway.entropy.draw(7))
    identifier = ("chatcmpl-" if chat else "cmpl-") + operation.hex()[:24]
    shape = Shape(chat, identifier, model.name, gateway.clock.now_ms() // 1000)
    work = _Work(gateway, model, operation)
    if asked.stream:
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        pieces = work.stream(task, seed & ((1 << 63) - 1), shape, with_usage)
        first = await anext(pieces)
        return StreamingResponse(_chain(first, pieces), media_type="text/event-stream")
    value, receipt = await work.whole(task, seed & ((1 << 63) - 1))
    return JSONResponse(shape.whole(value, receipt), headers={"x-fallow-receipt": receipt})


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


class _Work:
    """One answer with its money: booked at what it cost; when its client goes away before the end, at the tokens that
    came so far; at nothing when it failed."""

    def __init__(self, gateway: Gateway, model: ServedModel, operation: bytes) -> None:
        self._gateway, self._model, self._operation = gateway, model, operation
        self._failed = False

    @asynccontextmanager
    async def _ask(self, task: Generate, seed: int) -> AsyncGenerator[Answer]:
        answer = Answer(task, seed)
        try:
            async with self._gateway.lane(self._model).ask(answer):
                yield answer
        except FallowError:
            self._failed = True
            raise
        finally:
            await asyncio.shield(self._gateway.book(self._operation, self._cost_ucr(answer)))

    def _cost_ucr(self, answer: Answer) -> int:
        tokens = 0 if self._failed else answer.pieces
        if answer.value is not None:
            tokens = answer.value.prompt_tokens + answer.value.completion_tokens
        return cost_ucr(tokens, self._model.price_ucr)

    async def whole(self, task: Generate, seed: int) -> tuple[GenerateValue, str]:
        """-> the finished answer and its receipt's id."""
        async with self._ask(task, seed) as answer:
            while not isinstance(item := await _next(answer), GenerateValue):
                pass
            return item, await self._receipt(answer)

    async def _receipt(self, answer: Answer) -> str:
        """As text; "" for one that was lost with a steward that was killed just then."""
        receipt = await _next(answer)
        assert isinstance(receipt, bytes), "the receipt comes last"
        return to_text("receipt", receipt) if receipt else ""

    async def stream(self, task: Generate, seed: int, shape: Shape, with_usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events. The first is only made when the first token is there, so that an error before it still
        has its own HTTP status."""
        async with self._ask(task, seed) as answer:
            item = await _next(answer)
            yield shape.opening() + (shape.piece(item) if isinstance(item, str) else b"")
            try:
                while not isinstance(item, GenerateValue):
                    item = await _next(answer)
                    if isinstance(item, str):
                        yield shape.piece(item)
                yield shape.closing(item, await self._receipt(answer), with_usage)
            except FallowError as error:
                self._failed = True
                yield shape.broken(error)


async def _chat(request: Request) -> Response:
    return await _complete(request, chat=True)


async def _plain(request: Request) -> Response:
    return await _complete(request, chat=False)


async def _list(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    await gateway.reserve(_secret(request), 0)
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


def create_app(link: Link, clock: Clock, entropy: Entropy) -> Starlette:
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
            Route("/v1/chat/completions", _chat, methods=["POST"]),
            Route("/v1/completions", _plain, methods=["POST"]),
            Route("/v1/models", _list, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
        ],
        exception_handlers={FallowError: _refused, ClientDisconnect: _gone, HTTPException: _not_here},
        lifespan=lifespan,
    )
