"""One client of a lane: clients that do not read, talk nonsense, stop or leave, and receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.node.lanes.lane_stage import JOB, SERVE, Player, countdown, generate, impatient, lane_stage

from fallow.errors import FallowError
from fallow.node.lanes import session
from fallow.node.lanes.journal import LaneReceiptNote, lane_receipt_id
from fallow.node.lanes.session import LaneSession
from fallow.sdk.lanes import Answer, AsyncLane
from fallow.wire.codec import decode
from fallow.wire.local import LaneReceipt, OpenJobLane
from fallow.wire.messages import LaneItem, LaneReady, LaneResult, LaneStop, LaneTask, Message


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_OPEN", 8)

    async def large(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        yield LaneResult(task.number, bytes(500_000), 1)

    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", answer=large))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            for number in range(1, 101):
                await stream.send(LaneTask(number, b"p"))
            await stream.finish()
            await asyncio.sleep(0.3)
            stuck = len(player.asked)
            assert stuck < 40
            assert len([item async for item in stream]) == 100
        assert len(player.asked) == 100


async def test_pieces_that_pile_up_cost_the_client_its_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_OUT", 50)
    flood = asyncio.Event()

    async def endless(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        while not flood.is_set():
            yield LaneItem(task.number, b"x" * 2_000)
        yield LaneResult(task.number, b"", 1)

    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", answer=endless))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, b"p", stream=True))
            await asyncio.sleep(0.5)
            with pytest.raises(FallowError) as slow:
                async for _ in stream:
                    pass
            assert slow.value.code == "E1803"
        flood.set()


@pytest.mark.parametrize("message", [LaneReady(1, 1), LaneTask(1, b"the same number")])
async def test_nonsense_ends_the_clients_lane_only(tmp_path: Path, message: Message) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", hold=True))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, b"x"))
            await until(lambda: player.asked)
            await stream.send(message)
            with pytest.raises(FallowError) as nonsense:
                await anext(aiter(stream))
            assert nonsense.value.code == "E1102"
        await until(lambda: player.stopped == [1])
        player.hold = False
        async with AsyncLane(s.link, JOB) as lane:
            assert (await lane.run(b"fine")).value == b"fine"


async def test_one_task_that_is_none_fails_alone(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", SERVE, countdown))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as wrong:
                await lane.run(b"no generate task")
            assert wrong.value.code == "E1102"
            assert (await lane.run(generate(2))).units == 9


async def test_a_stopped_task_ends_whether_it_runs_or_waits(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita", hold=True)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            answers = aiter(stream)
            await stream.send(LaneTask(1, b"waits"))
            await stream.send(LaneStop(1))
            result = await anext(answers)
            assert isinstance(result, LaneResult)
            assert (result.number, result.code) == (1, "E1402")
            await s.ready(player)
            await stream.send(LaneTask(2, b"runs"))
            await until(lambda: player.asked)
            await stream.send(LaneStop(2))
            await until(lambda: player.stopped)
        assert [task.params for task in player.asked] == [b"runs"]


async def test_nobody_works_for_a_client_that_left(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita", hold=True)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, b"waits"))
            await asyncio.sleep(0.05)
        await s.ready(player)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, b"runs"))
            await until(lambda: player.asked)
        await until(lambda: player.stopped)
        assert [task.params for task in player.asked] == [b"runs"]
        assert s.lanes._clients == {}


async def test_a_receipt_is_on_disk_before_its_answer_is_told(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita"))
        async with s.link.open(OpenJobLane(JOB, receipts=True)) as stream:
            answers = aiter(stream)
            for number in (7, 8):
                await stream.send(LaneTask(number, b"x%d" % number))
                result, receipt = await anext(answers), await anext(answers)
                assert isinstance(result, LaneResult)
                assert isinstance(receipt, LaneReceipt)
                assert result.number == receipt.number == number
                ours = player.asked[-1].number
                assert receipt.receipt == lane_receipt_id(player.lease, ours)
                raw = s.us.log.get(f"lane-receipt/{receipt.receipt.hex()}")
                assert decode(LaneReceiptNote, raw or b"") == LaneReceiptNote(JOB, player.lease, ours)
                assert s.us.log.read(s.lanes.legs[player.lease].stream_name)
        assert len(s.us.log.keys(f"receipts/{JOB.hex()}/")) == 2


async def test_receipts_of_many_answers_share_their_writes(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita"))
        async with AsyncLane(s.link, JOB, receipts=True) as lane:
            answers = await lane.map([b"x"] * 500)
        assert len({answer.receipt for answer in answers}) == 500
        assert len(s.us.log.read(s.lanes.legs[player.lease].stream_name)) < 100


async def test_what_is_under_way_when_the_job_ends_is_answered(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", hold=True))
        async with AsyncLane(s.link, JOB) as lane:
            waiting = s.pool.tasks.create_task(lane.run(b"x"))
            await until(lambda: player.asked)
            s.lanes.end_job(JOB, "E1402", "You cancelled it.")
            player.hold = False
            player.unasked.put_nowait(LaneResult(player.asked[0].number, b"x", 1))
            leg = s.lanes.legs[player.lease]
            leg._result(LaneResult(player.asked[0].number, b"x", 1))
            assert await waiting == Answer(b"x", 1)


async def test_a_lane_that_is_shutting_down_takes_nobody(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        session = LaneSession(s.lanes, s.keys, JOB, receipts=False)
        s.lanes._group = None
        with pytest.raises(FallowError) as closing:
            s.lanes.spawn(session.read(_nothing()), "reader")
        assert closing.value.retryable


async def _nothing() -> AsyncIterator[Message]:
    return
    yield
