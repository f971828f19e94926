"""The OpenAPI description of the doors, made of what their bodies are read with."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from fallow.gateway.doors.registry import DOORS
from fallow.gateway.listing import ROUTES, ShowRequest

ANSWERS = {code: {"description": text} for code, text in {
    "200": "answered", "400": "refused", "401": "no key", "404": "no such model", "429": "too many, or spent",
    "500": "our mistake", "503": "nobody serves it",
}.items()}  # fmt: skip
_POSTED = {"/api/show": ShowRequest}


def described() -> dict[str, Any]:
    """All routes."""
    bodies = {door.path: door.body for door in DOORS} | _POSTED
    _, schemas = models_json_schema(
        [(body, "validation") for body in {*bodies.values()}], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {"/health": {"get": {"responses": ANSWERS, "security": []}}}
    paths |= {"/openapi.json": {"get": {"responses": ANSWERS, "security": []}}}
    for path, body in bodies.items():
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
        paths[path] = {"post": {"requestBody": {"required": True, "content": content}, "responses": ANSWERS}}
    named = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    for route in ROUTES:
        path = route.path_format
        if path not in paths:
            paths[path] = {"get": {"responses": ANSWERS, **({"parameters": named} if "{" in path else {})}}
    secured = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}, "schemas": schemas["$defs"]}
    about = {"title": "Fallow's gateway", "version": "1"}
    return {"openapi": "3.1.0", "info": about, "security": [{"key": []}], "paths": paths, "components": secured}
