"""What is served, as each door's clients ask for it; each needs a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fallow.errors import FallowError
from fallow.gateway.bodies import read_body, secret_of
from fallow.gateway.doors.fields import BodyFields, parse
from fallow.gateway.doors.openai import error_reply
from fallow.gateway.models import Models
from fallow.units import to_text
from fallow.wire.local import ServedModel

OLLAMA_VERSION = "0.6.0"
"""The version of Ollama's interface that is answered."""


def _card(model: ServedModel) -> dict[str, Any]:
    """A model as OpenAI's and Anthropic's clients read it."""
    made_s = model.created_ms // 1000
    return {
        "id": model.name, "object": "model", "created": made_s, "owned_by": to_text("job", model.job),
        "context_length": model.context_tokens, "price_ucr": model.price_ucr, "type": "model",
        "display_name": model.name, "created_at": _iso(model),
    }  # fmt: skip


def _iso(model: ServedModel) -> str:
    return datetime.fromtimestamp(model.created_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


async def _list(_request: Request, models: Models) -> dict[str, Any]:
    data = [_card(model) for model in await models.served()]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": False, **ends}


async def _retrieve(request: Request, models: Models) -> dict[str, Any]:
    return _card(await models.find(request.path_params["name"]))


def _tag(model: ServedModel) -> dict[str, Any]:
    details = {"format": "", "family": "", "families": None, "parameter_size": "", "quantization_level": ""}
    about = {"name": model.name, "model": model.name, "modified_at": _iso(model), "size": 0, "details": details}
    return {**about, "digest": model.job.hex()}


async def _tags(_request: Request, models: Models) -> dict[str, Any]:
    return {"models": [_tag(model) for model in await models.served()]}


class ShowRequest(BodyFields):
    """The body of /api/show."""

    harmless = frozenset({"verbose"})
    model: str


async def _show(request: Request, models: Models) -> dict[str, Any]:
    model = await models.find(parse(ShowRequest, await read_body(request, lambda _size: None)).model)
    info = {"general.architecture": "fallow", "fallow.context_length": model.context_tokens}
    return {**_tag(model), "model_info": info, "capabilities": ["completion", "tools"]}


async def _version(_request: Request, _models: Models) -> dict[str, Any]:
    return {"version": OLLAMA_VERSION}


Lookup = Callable[[Request, Models], Awaitable[dict[str, Any]]]


def _keyed(answer: Lookup, path: str, method: str = "GET") -> Route:
    async def respond(request: Request) -> Response:
        models: Models = request.app.state.models
        try:
            await models.check(secret_of(request))
            return JSONResponse(await answer(request, models))
        except FallowError as error:
            status, body = error_reply(error)
            return JSONResponse(body, status)

    return Route(path, respond, methods=[method])


ROUTES = (
    _keyed(_list, "/v1/models"),
    _keyed(_retrieve, "/v1/models/{name:path}"),
    _keyed(_tags, "/api/tags"),
    _keyed(_show, "/api/show", "POST"),
    _keyed(_version, "/api/version"),
)
