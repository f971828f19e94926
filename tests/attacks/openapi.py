"""The OpenAPI description of the gateway, of the models that its bodies are read with, for tools that try APIs out:

python -m tests.attacks.openapi > openapi.json
schemathesis run openapi.json --url http://127.0.0.1:8790 -H "Authorization: Bearer KEY"
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from fallow.gateway.requests import ChatRequest, CompletionRequest

ANSWERS = {code: {"description": text} for code, text in {
    "200": "answered", "400": "refused", "401": "no key", "404": "no such model", "413": "too large", "429": "too many",
    "402": "spent", "503": "nobody serves it", "403": "refused", "405": "no such method", "415": "no JSON",
}.items()}  # fmt: skip


def described() -> dict[str, Any]:
    """All routes."""
    _, schemas = models_json_schema(
        [(ChatRequest, "validation"), (CompletionRequest, "validation")], ref_template="#/components/schemas/{model}"
    )

    def post(model: str) -> dict[str, Any]:
        body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
        return {"post": {"requestBody": {"required": True, "content": body}, "responses": ANSWERS}}

    paths = {
        "/v1/chat/completions": post("ChatRequest"), "/v1/completions": post("CompletionRequest"),
        "/v1/models": {"get": {"responses": ANSWERS}}, "/health": {"get": {"responses": ANSWERS}},
    }  # fmt: skip
    about = {"title": "Fallow", "version": "1"}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": {"schemas": schemas["$defs"]}}


if __name__ == "__main__":
    print(json.dumps(described()))
