"""Floods on lanes: a requester's tasks, a provider's endless answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.attacks.target import MIB, until
from tests.node.lanes.lane_stage import JOB, Player, lane_stage

from fallow.errors import FallowError
from fallow.node.lanes.leg import KEPT_BYTES
from fallow.node.provider.lane import ALL_LANES_BYTES, LANE_BYTES, MAX_OUT_BYTES, LaneRoom, ServedLane
from fallow.wire.local import OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneTask, Message
from fallow.wire.worker import LaneAnswers

BIG = bytes(MIB)


class StillWorker:
    """Takes everything and answers nothing."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.paused = False

    def send(self, message: object) -> None:
        self.sent.append(message)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Still:
    """A clock at which nothing happens."""

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def tasks(told: list[int]) -> AsyncIterator[Message]:
    for number in range(1, 2_000):
        told.append(number)
        yield LaneTask(number, BIG)


def lane(room: LaneRoom, worker: StillWorker) -> ServedLane:
    def claim(*_: object) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    return ServedLane(2_000, worker, Still(), lambda: 1 << 40, claim, b"", None, room)  # type: ignore[arg-type]


async def test_large_lane_tasks_wait_on_the_wire() -> None:
    """A requester opens a lane with a window of 2,000 and sends tasks of 1 MiB. Gained: LANE_BYTES in the provider's
    process; the rest is not read, so QUIC holds the sender back. Over many leases: ALL_LANES_BYTES."""
    room, lanes, told = LaneRoom(), list[ServedLane](), list[list[int]]()
    async with asyncio.TaskGroup() as group:
        readers: list[asyncio.Task[None]] = []
        for _ in range(20):
            lanes.append(lane(room, StillWorker()))
            told.append([])
            readers.append(group.create_task(lanes[-1].read(tasks(told[-1]))))
        await until(lambda: room.bytes >= ALL_LANES_BYTES - MIB)
        for _ in range(20):
            await asyncio.sleep(0)
        assert all(one.held_bytes <= LANE_BYTES for one in lanes)
        assert all(one.held_bytes for one in lanes)  # each of them may have one
        assert room.bytes <= ALL_LANES_BYTES + len(lanes) * MIB
        for reader, one in zip(readers, lanes, strict=True):
            reader.cancel()
            one.close()
        assert room.bytes == 0


async def test_an_answered_task_makes_room_and_leaves_only_its_leaf() -> None:
    """The same, with a worker that answers with 1 MiB each, to a requester that reads nothing. Gained: 0; the worker is
    held back at MAX_OUT_BYTES, and what waits for a claim is a hash."""
    room, worker, told = LaneRoom(), StillWorker(), list[int]()
    one = lane(room, worker)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(one.read(tasks(told)))
        await until(lambda: len(told) > 16)
        for number in range(1, 6):
            one.on_worker(LaneAnswers((LaneResult(number, BIG, 1),)))
        assert worker.paused
        assert MAX_OUT_BYTES < 5 * MIB
        await until(lambda: len(told) > 20)
        reader.cancel()
    one.close()


@pytest.mark.parametrize("size_bytes", [MIB, 50_000])
async def test_an_endless_answer_ends(tmp_path: Path, size_bytes: int) -> None:
    """A provider streams without end in answer to one task. Gained: 1 MiB of text, the most that an answer may be; then
    the task has failed with E1502 and is stopped, and nothing is owed."""
    said = 0

    async def endless(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        nonlocal said
        while said < 400 * MIB:
            said += size_bytes
            yield LaneItem(task.number, bytes(size_bytes))
        yield LaneResult(task.number, b"", 1)

    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", answer=endless))
        heard = 0
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, b"p", stream=True))
            async for message in stream:
                if isinstance(message, LaneResult):
                    assert message.code == "E1502"
                    break
                assert isinstance(message, LaneItem)
                heard += len(message.data)
        assert heard <= MIB


async def test_many_endless_answers_have_one_bound(tmp_path: Path) -> None:
    """Every one of 100 tasks is answered with almost as much as an answer may be, and no end. Gained: KEPT_BYTES of
    text in the steward, whose client leaves it unread: the lane ends with E1803 and everything on it is dropped."""

    async def almost(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        for _ in range(15):
            yield LaneItem(task.number, bytes(60_000))

    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", answer=almost))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            for number in range(1, 101):
                await stream.send(LaneTask(number, b"p", stream=True))
            leg = next(iter(s.lanes.legs.values()))
            heard, codes = 0, set[str]()
            try:
                async for message in stream:
                    if isinstance(message, LaneItem):
                        heard += len(message.data)
                    if isinstance(message, LaneResult):
                        codes.add(message.code)
                        break
            except FallowError as error:
                codes.add(error.code)
            assert codes <= {"E1502", "E1803"}
            assert sum(len(ask.text) for ask in leg.flying.values()) <= KEPT_BYTES
