from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.fake_node import JOB, RECEIPT, FakeNode, running

from fallow.errors import FallowError
from fallow.sdk import lanes
from fallow.sdk.client import AsyncFallow
from fallow.sdk.lanes import Answer, fail_safely
from fallow.wire.messages import LaneStop


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with running(tmp_path / "home") as fake:
        yield fake


@pytest.fixture
def client(node: FakeNode, tmp_path: Path) -> AsyncFallow:
    return AsyncFallow(tmp_path / "home")


async def test_one_task(client: AsyncFallow) -> None:
    async with client.lane(JOB) as lane:
        assert await lane.run(b"hello") == Answer(b"hello", 1)


async def test_many_tasks_come_back_in_order_with_receipts(client: AsyncFallow) -> None:
    params = [str(number).encode() for number in range(3000)]
    async with client.lane(JOB, receipts=True) as lane:
        answers = await lane.map(params)
    assert [answer.value for answer in answers] == params
    assert {answer.receipt for answer in answers} == {RECEIPT}


async def test_a_refused_task_raises_its_own_error_and_the_lane_goes_on(client: AsyncFallow) -> None:
    async with client.lane(JOB) as lane:
        with pytest.raises(FallowError) as caught:
            await lane.map([b"a", b"fail", b"b"])
        assert caught.value.code == "E1704"
        assert (await lane.run(b"c")).value == b"c"


async def test_a_streamed_answer_comes_in_pieces_and_ends_with_the_whole(client: AsyncFallow) -> None:
    async with client.lane(JOB) as lane:
        pieces = [piece async for piece in lane.stream(b"ab")]
    assert pieces == [b"ab", b"ab", b"ab", Answer(b"ab", 1, RECEIPT)]


async def test_leaving_a_stream_early_stops_the_work(node: FakeNode, client: AsyncFallow) -> None:
    async with client.lane(JOB) as lane:
        waiting = lane.stream(b"hang")
        first = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        assert (await lane.run(b"after it")).value == b"after it"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await lane.run(b"the stop came before this")
    assert node.requests(LaneStop) == [LaneStop(1)]


async def test_closing_a_lane_fails_what_is_unanswered(client: AsyncFallow) -> None:
    async with asyncio.timeout(5):
        async with client.lane(JOB) as lane:
            hanging = asyncio.ensure_future(lane.run(b"hang"))
            await lane.run(b"so the other one has been sent")
        with pytest.raises(FallowError) as caught:
            await hanging
    assert caught.value.code == "E1801"
    with pytest.raises(FallowError):
        await lane.run(b"too late")


async def test_the_window_bounds_what_is_unanswered(client: AsyncFallow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WINDOW", 2)
    async with client.lane(JOB) as lane:
        assert len(await lane.map([b"x"] * 50)) == 50
        stuck = [asyncio.ensure_future(lane.run(b"hang")) for _ in range(2)]
        await asyncio.sleep(0)
        third = asyncio.ensure_future(lane.run(b"no room"))
        done, _ = await asyncio.wait({third}, timeout=0.05)
        assert not done
        for task in (*stuck, third):
            task.cancel()


async def test_the_bodys_own_error_comes_out_unwrapped(client: AsyncFallow) -> None:
    with pytest.raises(KeyError):
        async with client.lane(JOB):
            raise KeyError("mine")


async def test_without_a_node_a_lane_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(FallowError) as caught:
        async with AsyncFallow(tmp_path).lane(JOB):
            pass
    assert caught.value.code == "E2004"


def test_an_unknown_code_from_the_wire_is_reported_not_raised() -> None:
    assert fail_safely("E0000", "odd").code == "E9001"
    assert fail_safely("E1704", "died").code == "E1704"
