"""The HTTP door through the unmodified official client: answers, streams, and errors in the shape that it knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest
from tests.gateway.steward_stub import WORDS, door

TURNS = [{"role": "user", "content": "Count down."}]


def client(url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=20)


async def with_key(url: str, key: str) -> None:
    async with client(url, key) as api:
        await api.chat.completions.create(model="countdown", messages=TURNS)  # type: ignore[arg-type]


async def test_a_chat_is_answered_with_usage_and_a_receipt(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        answer = await api.chat.completions.create(model="countdown", messages=TURNS, max_tokens=4, temperature=0)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "9 8 7 6 "
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
        assert answer.model_extra == {"receipt": "r_" + "09" * 32}
        assert steward.asked[0].temperature == "0"
        assert steward.keys.views()[0].spent_ucr == 11_000


async def test_a_stream_comes_in_pieces_and_says_what_it_used(tmp_path: Path) -> None:
    async with door(tmp_path) as (_, url, key), client(url, key) as api:
        stream = await api.chat.completions.create(
            model="countdown", messages=TURNS, stream=True, stream_options={"include_usage": True}  # type: ignore[arg-type]
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
        assert pieces == WORDS
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 10


async def test_plain_completions_work_too(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        answer = await api.completions.create(model="countdown", prompt="9 8", max_tokens=2, stop=["x"], seed=5)
        assert answer.choices[0].text == "9 8 "
        assert (steward.asked[0].prompt, steward.asked[0].stop) == ("9 8", ("x",))
        stream = await api.completions.create(model="countdown", prompt="9", max_tokens=3, stream=True)
        assert "".join([c.choices[0].text async for c in stream if c.choices]) == "9 8 7 "


async def test_models_are_listed(tmp_path: Path) -> None:
    async with door(tmp_path) as (_, url, key), client(url, key) as api:
        assert [model.id async for model in api.models.list()] == ["countdown"]


async def test_errors_are_the_ones_that_clients_know(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        with pytest.raises(openai.NotFoundError) as missing:
            await api.chat.completions.create(model="gpt-9", messages=TURNS)  # type: ignore[arg-type]
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.AuthenticationError) as wrong:
            await with_key(url, "fk-wrong")
        assert wrong.value.code == "invalid_api_key"
        poor = steward.keys.make("poor", 5)
        with pytest.raises(openai.RateLimitError) as broke:
            await with_key(url, poor)
        assert broke.value.code == "insufficient_quota"
        with pytest.raises(openai.BadRequestError) as large:
            await api.chat.completions.create(model="countdown", messages=TURNS, max_tokens=512)  # type: ignore[arg-type]
        assert large.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as long:
            await api.completions.create(model="countdown", prompt="x" * (2 << 20))
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="countdown", messages=TURNS, n=99)  # type: ignore[arg-type]
        with pytest.raises(openai.NotFoundError) as unknown:
            await api.embeddings.create(model="countdown", input="x")
        assert "is not answered here" in unknown.value.message
        assert steward.asked == []
        assert [k.spent_ucr for k in steward.keys.views()] == [0, 0]


async def test_a_failed_answer_costs_nothing(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        steward.fail_with = "E1906"
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError):
                await api.chat.completions.create(model="countdown", messages=TURNS, stream=stream)  # type: ignore[call-overload]
        view = steward.keys.views()[0]
        assert view.spent_ucr == 0
        steward.keys.reserve(key, view.budget_ucr)


async def test_a_stream_goes_on_when_the_steward_is_restarted(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        steward.break_after = 4
        stream = await api.chat.completions.create(model="countdown", messages=TURNS, stream=True)  # type: ignore[arg-type]
        pieces = [c.choices[0].delta.content async for c in stream if c.choices and c.choices[0].delta.content]
        assert pieces == WORDS
        assert [asked.resume for asked in steward.asked] == ["", "9 8 7 6 "]


async def test_a_whole_answer_is_whole_when_the_steward_is_restarted(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        steward.break_after = 4
        answer = await api.chat.completions.create(model="countdown", messages=TURNS, max_tokens=6)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "9 8 7 6 5 4 "
        assert [asked.max_tokens for asked in steward.asked] == [6, 2]


async def test_nobody_works_for_a_client_that_goes_away(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        steward.go_on.clear()
        stream = await api.chat.completions.create(model="countdown", messages=TURNS, stream=True)  # type: ignore[arg-type]
        chunks = aiter(stream)
        while not (chunk := await anext(chunks)).choices[0].delta.content:
            pass
        assert chunk.choices[0].delta.content == WORDS[0]
        await stream.close()
        steward.go_on.set()
        for _ in range(500):
            if steward.stopped:
                break
            await asyncio.sleep(0.01)
        assert steward.stopped == [1]


async def test_nobody_works_for_a_client_that_leaves_without_having_asked_for_a_stream(tmp_path: Path) -> None:
    async with door(tmp_path) as (steward, url, key), client(url, key) as api:
        steward.go_on.clear()
        with pytest.raises(openai.APITimeoutError):
            await api.chat.completions.create(model="countdown", messages=TURNS, n=2, timeout=0.5)  # type: ignore[arg-type]
        steward.go_on.set()
        for _ in range(500):
            if len(steward.stopped) == 2:
                break
            await asyncio.sleep(0.01)
        assert sorted(steward.stopped) == [1, 2]


async def test_bodies_that_are_no_requests_are_refused(tmp_path: Path) -> None:
    async with door(tmp_path) as (_, url, key), httpx.AsyncClient(timeout=20) as http:
        headers = {"authorization": f"Bearer {key}"}
        for body in (b"", b"{", b"[]", b'{"model":"countdown"}', b"\xff\xfe", b'{"model":"countdown","messages":[]}'):
            reply = await http.post(f"{url}/chat/completions", content=body, headers=headers)
            assert reply.status_code == 400
            assert reply.json()["error"]["type"] == "invalid_request_error"
        reply = await http.post(f"{url}/chat/completions", content=b"{}")
        assert reply.status_code == 401


async def test_pages_that_the_owner_names_may_ask_from_a_browser(tmp_path: Path) -> None:
    asks = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    async with door(tmp_path, ("https://chat.example",)) as (_, url, _key), httpx.AsyncClient(timeout=20) as http:
        allowed = await http.options(f"{url}/chat/completions", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
        other = await http.options(f"{url}/chat/completions", headers=asks | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
