"""The description that tools try the gateway out by is of what the gateway has."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import Route

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.gateway.app import create_app
from fallow.gateway.openapi import described
from fallow.sdk.link import NodeSocket


def test_every_route_is_described(tmp_path: Path) -> None:
    app = create_app(NodeSocket(tmp_path / "api.sock"), SystemClock(), SystemEntropy())
    routes = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    told = {(path, method) for path, methods in described()["paths"].items() for method in methods}
    assert {one for one in routes if one[1] != "head"} == told


def test_bodies_are_those_that_are_read() -> None:
    schemas = described()["components"]["schemas"]
    assert {"messages", "model", "max_tokens"} <= set(schemas["ChatRequest"]["properties"])
    assert {"prompt", "model", "max_tokens"} <= set(schemas["CompletionRequest"]["properties"])
