"""What comes before a request's meaning."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
from tests.gateway.clients import TURNS
from tests.gateway.steward_stub import door


async def test_bodies_may_be_packed_and_keys_in_any_header(tmp_path: Path) -> None:
    body = json.dumps({"model": "countdown", "messages": TURNS, "max_tokens": 1}).encode()
    async with door(tmp_path) as (_, url, key), httpx.AsyncClient(timeout=20) as http:
        for name in ("api-key", "x-api-key"):
            headers = {name: key, "content-encoding": "gzip"}
            reply = await http.post(f"{url}/chat/completions", content=gzip.compress(body), headers=headers)
            assert reply.status_code == 200
            assert reply.headers["x-request-id"].startswith("req_")
        headers = {"api-key": key, "content-encoding": "gzip"}
        bomb = gzip.compress(bytes(1 << 26))
        assert len(bomb) < 1 << 17
        for packed, code in ((body, "E1904"), (bomb, "E1903")):
            reply = await http.post(f"{url}/chat/completions", content=packed, headers=headers)
            assert (reply.status_code, reply.json()["error"]["fallow"]["code"]) == (400, code)
        reply = await http.post(f"{url}/chat/completions", content=body, headers=headers | {"content-encoding": "br"})
        assert reply.status_code == 400
