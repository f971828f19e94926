"""Lease streams: durable, in order, resumable; and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.node.provider.provider_net import open_pool

from fallow.errors import FallowError
from fallow.node.provider.feed import MAX_PASSING, MAX_WATCHERS, Feeds
from fallow.node.router import Router
from fallow.rules.provider.events import EmitEvent
from fallow.wire.messages import LeaseEvent, LeaseLeaving, LogLine, Progress

LEASE, OTHER = b"l" * 32, b"m" * 32


@pytest.fixture
async def feeds(tmp_path: Path) -> AsyncGenerator[Feeds]:
    async with open_pool(tmp_path) as pool:
        yield Feeds(await pool.services("pat", Router()))


def event(sequence: int, text: str = "", lease: bytes = LEASE) -> EmitEvent:
    return EmitEvent(lease, sequence, 5, LeaseLeaving(text or f"e{sequence}"))


async def durable(feeds: Feeds, count: int, after: int = 0, lease: bytes = LEASE) -> list[LeaseEvent]:
    found: list[LeaseEvent] = []
    stream = feeds.follow(lease, after)
    async with asyncio.timeout(10):
        async for item in stream:
            if item.sequence:
                found.append(item)
            if len(found) == count:
                break
    await stream.aclose()
    return found


async def test_events_come_in_order_from_where_one_stopped(feeds: Feeds) -> None:
    await feeds.append([event(1), event(1, lease=OTHER), event(2)])
    await feeds.append([event(3)])
    assert [(e.sequence, e.body) for e in await durable(feeds, 3)] == [(n, LeaseLeaving(f"e{n}")) for n in (1, 2, 3)]
    assert [e.sequence for e in await durable(feeds, 1, after=2)] == [3]
    assert len(await durable(feeds, 1, lease=OTHER)) == 1


async def test_what_was_heard_of_never_changes(feeds: Feeds) -> None:
    await feeds.append([event(1), event(2)])
    again = Feeds(feeds._s)
    await again.append([event(1, "changed"), event(2, "changed"), event(3)])
    assert [e.body for e in await durable(again, 3)] == [LeaseLeaving("e1"), LeaseLeaving("e2"), LeaseLeaving("e3")]


async def test_a_watcher_hears_at_once_that_it_is_heard_and_then_what_happens(feeds: Feeds) -> None:
    stream = feeds.follow(LEASE, 0)
    first: Any = await anext(stream)
    assert (first.sequence, first.body.note) == (0, "watching")
    feeds.passing(LEASE, LogLine(bytes(32), "a line"))
    assert (await anext(stream)).body == LogLine(bytes(32), "a line")
    await feeds.append([event(1)])
    assert (await anext(stream)).sequence == 1
    await stream.aclose()
    feeds.passing(LEASE, LogLine(bytes(32), "nobody hears"))


async def test_a_watcher_that_does_not_read_loses_only_what_passes_by(feeds: Feeds) -> None:
    stream = feeds.follow(LEASE, 0)
    await anext(stream)
    for number in range(2 * MAX_PASSING):
        feeds.passing(LEASE, Progress(bytes(32), number, 1_000))
    await feeds.append([event(1)])
    assert (await anext(stream)).sequence == 1
    passed: list[Any] = [await anext(stream) for _ in range(MAX_PASSING)]
    assert [item.body.done for item in passed] == list(range(MAX_PASSING, 2 * MAX_PASSING))
    await stream.aclose()


async def test_the_oldest_of_too_many_watchers_is_dropped(feeds: Feeds) -> None:
    streams = [feeds.follow(LEASE, 0) for _ in range(MAX_WATCHERS + 1)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(FallowError) as dropped:
        await anext(streams[0])
    assert dropped.value.code == "E1803"
    for stream in streams[1:]:
        await stream.aclose()
