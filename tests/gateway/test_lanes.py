"""The gateway's lane: answers that break off, clients that do not read, stewards that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.steward_stub import WORDS, Steward

from fallow.errors import FallowError, fail
from fallow.gateway import lanes
from fallow.gateway.lanes import AnswerPart, ModelLane, PaidAnswer
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.node.local_socket import local_socket
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket

JOB = bytes(32)
SECRETS: list[str] = []


def count(max_tokens: int = 10) -> PaidAnswer:
    return PaidAnswer(Generate((), "count", max_tokens), 0, SECRETS[-1], 1_000_000, 1_000)


@asynccontextmanager
async def lane(tmp_path: Path) -> AsyncIterator[tuple[Steward, ModelLane]]:
    steward = Steward(tmp_path)
    SECRETS.append(steward.keys.make("test", 1_000_000_000))
    made = ModelLane(NodeSocket(socket_path(tmp_path)), JOB)
    try:
        async with asyncio.timeout(20), local_socket(tmp_path, steward.router()), asyncio.TaskGroup() as group:
            running = group.create_task(made.run())
            yield steward, made
            steward.go_on.set()
            running.cancel()
    finally:
        steward.log.close()


async def hear(answer: PaidAnswer) -> AnswerPart:
    while (item := answer.take()) is None:
        answer.news.clear()
        await answer.news.wait()
    return item


async def read(answer: PaidAnswer) -> tuple[list[str], GenerateValue, bytes]:
    pieces: list[str] = []
    while isinstance(item := await hear(answer), str):
        pieces.append(item)
    assert isinstance(item, GenerateValue)
    receipt = await hear(answer)
    assert isinstance(receipt, bytes)
    return pieces, item, receipt


async def test_pieces_then_the_value_then_the_receipt(tmp_path: Path) -> None:
    async with lane(tmp_path) as (_, made):
        answer = count(3)
        async with made.ask(answer):
            assert await read(answer) == (
                WORDS[:3],
                GenerateValue("9 8 7 ", "length", 7, 3, b"l" * 32),
                bytes([9]) * 32,
            )
        assert answer.value is not None


async def test_a_resumed_answer_is_no_longer_and_its_value_is_whole(tmp_path: Path) -> None:
    async with lane(tmp_path) as (steward, made):
        steward.break_after = 2
        answer = count(5)
        async with made.ask(answer):
            pieces, value, _ = await read(answer)
        assert pieces == WORDS[:5]
        assert value.text == "9 8 7 6 5 "
        assert value.logits == b""  # a commitment to the last part is none to the whole
        assert [(asked.resume, asked.max_tokens) for asked in steward.asked] == [("", 5), ("9 8 ", 3)]


async def test_a_client_that_does_not_read_loses_its_answer_and_not_the_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MAX_WAITING_PIECES", 4)
    async with lane(tmp_path) as (steward, made):
        slow, quick = count(), count(2)
        async with made.ask(slow):
            while not steward.stopped:
                await asyncio.sleep(0.01)
            assert [await hear(slow) for _ in range(4)] == WORDS[:4]
            with pytest.raises(FallowError) as lost:
                await hear(slow)
            assert lost.value.code == "E1803"
        async with made.ask(quick):
            assert (await read(quick))[0] == WORDS[:2]


@pytest.mark.parametrize(("code", "heard"), [("E1903", "E1903"), ("E7777", "E9001"), ("E1801", "E1801")])
async def test_a_failed_answer_fails_alone_whatever_its_code(tmp_path: Path, code: str, heard: str) -> None:
    async with lane(tmp_path) as (steward, made):
        steward.fail_with = code
        answer = count()
        async with made.ask(answer):
            with pytest.raises(FallowError) as failed:
                await hear(answer)
        assert failed.value.code == heard
        steward.fail_with = ""
        again = count(1)
        async with made.ask(again):
            assert (await read(again))[0] == ["9 "]


async def test_a_steward_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    steward = Steward(tmp_path)
    SECRETS.append(steward.keys.make("test", 1_000_000_000))
    made, answer = ModelLane(NodeSocket(socket_path(tmp_path)), JOB), count(4)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        steward.go_on.clear()
        async with made.ask(answer):
            async with local_socket(tmp_path, steward.router()):
                assert await hear(answer) == "9 "
            steward.go_on.set()
            await asyncio.sleep(0.4)  # nobody listens now
            async with local_socket(tmp_path, steward.router()):
                pieces, value, _ = await read(answer)
                assert (pieces, value.text) == (WORDS[1:4], "9 8 7 6 ")
                running.cancel()
    steward.log.close()


async def test_a_steward_that_stays_away_ends_the_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "REOPEN_FOR_S", 0.1)
    monkeypatch.setattr(lanes, "REOPEN_EVERY_S", 0.02)
    SECRETS.append("nobody asks")
    made, answer = ModelLane(NodeSocket(socket_path(tmp_path)), JOB), count()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        async with made.ask(answer):
            with pytest.raises(FallowError) as gone:
                await hear(answer)
        await running
    assert gone.value.code == "E2004"
    with pytest.raises(FallowError):
        async with made.ask(count()):
            pass


async def test_the_end_of_the_job_ends_the_lane(tmp_path: Path) -> None:
    steward = Steward(tmp_path)
    SECRETS.append(steward.keys.make("test", 1_000_000_000))
    router: Any = steward.router()

    async def over(*_: object) -> AsyncIterator[Any]:
        raise fail("E1402", "You cancelled it.")
        yield

    router._streaming = dict.fromkeys(router._streaming, over)
    made, answer = ModelLane(NodeSocket(socket_path(tmp_path)), JOB), count()
    async with asyncio.timeout(10), local_socket(tmp_path, router), asyncio.TaskGroup() as group:
        group.create_task(made.run())
        async with made.ask(answer):
            with pytest.raises(FallowError) as ended:
                await hear(answer)
        assert ended.value.code == "E1402"
    steward.log.close()


async def test_leaving_early_stops_the_work(tmp_path: Path) -> None:
    async with lane(tmp_path) as (steward, made):
        steward.go_on.clear()
        answer = count()
        async with made.ask(answer):
            assert await hear(answer) == "9 "
        steward.go_on.set()
        while not steward.stopped:
            await asyncio.sleep(0.01)
        assert steward.stopped == [1]
        assert answer.pieces == 1
