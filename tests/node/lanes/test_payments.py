"""Tasks that a key pays for: never overspent, never told before they are on disk, booked whatever the client does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.lanes.lane_stage import JOB, SERVE, LaneStage, Player, countdown, generate, impatient, lane_stage
from tests.node.test_api_keys import FullDisk

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.kinds.generate.tasks import CANCELLED, GenerateValue
from fallow.node.api_keys import ApiKeys
from fallow.node.lanes.payments import Payments
from fallow.sdk.link import LinkStream
from fallow.wire.codec import encode
from fallow.wire.local import LaneReceipt, OpenJobLane, PaidTask
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, Message

PRICE_UCR = 2_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def paid(secret: str, number: int = 1, amount_ucr: int = 1_000_000) -> PaidTask:
    return PaidTask(number, generate(10), 0, secret, amount_ucr, PRICE_UCR)


def spent(s: LaneStage) -> int:
    return s.keys.views()[0].spent_ucr


def cut_short(player: Player, words: int, **changes: Any) -> LaneResult:
    """The answer of a provider that was stopped after so many words."""
    text = "".join(f"{9 - n} " for n in range(words))
    value = msgspec.structs.replace(GenerateValue(text, CANCELLED, 7, words), **changes)
    result = LaneResult(player.asked[-1].number, encode(value), value.prompt_tokens + value.completion_tokens)
    player.answered.append((player.asked[-1], result))
    return result


async def say(s: LaneStage, player: Player, words: int) -> None:
    for n in range(words):
        await s.lanes.legs[player.lease]._heard(LaneItem(player.asked[-1].number, f"{9 - n} ".encode()))


async def begin(s: LaneStage, stream: LinkStream, player: Player) -> None:
    """Ask, and hear two words of the answer."""
    await stream.send(paid(s.keys.make("app", 1_000_000)))
    await until(lambda: player.asked)
    await say(s, player, 2)
    assert [await anext(aiter(stream)) for _ in range(2)] == [LaneItem(1, b"9 "), LaneItem(1, b"8 ")]


async def test_an_answer_is_booked_at_its_units_before_its_end_is_told(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", SERVE, countdown))
        secret = s.keys.make("app", 1_000_000)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(paid(secret))
            heard: list[Message | bytes] = []
            async for item in stream:
                heard.append(item)
                if isinstance(item, LaneReceipt):
                    break
        assert [type(item) for item in heard] == [LaneItem] * 10 + [LaneResult, LaneReceipt]
        again = ApiKeys(s.us.log, s.us.clock, s.us.entropy)
        assert again.views()[0].spent_ucr == spent(s) == 17 * PRICE_UCR // 1000
        s.keys.reserve(secret, 1_000_000 - spent(s))  # the rest is free again


async def test_nobody_is_asked_for_a_key_that_cannot_pay(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, countdown))
        poor = s.keys.make("app", 999)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            for number, secret, code in ((1, "fk-wrong", "E1902"), (2, poor, "E1905")):
                await stream.send(paid(secret, number))
                said = await anext(aiter(stream))
                assert isinstance(said, LaneResult)
                assert (said.number, said.code, said.units) == (number, code, 0)
        assert player.asked == []


@pytest.mark.parametrize("how", ["stops", "goes away"])
async def test_what_was_made_for_a_client_that_leaves_is_owed_and_booked_alike(tmp_path: Path, how: str) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, hold=True))
        leg = s.lanes.legs[player.lease]
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await begin(s, stream, player)
            if how == "stops":
                await stream.send(LaneStop(1))
                await until(lambda: player.stopped)
                leg._result(cut_short(player, 2))
                result, receipt = await anext(aiter(stream)), await anext(aiter(stream))
                assert isinstance(result, LaneResult)
                assert (result.code, result.units) == ("", 9)
                assert isinstance(receipt, LaneReceipt)
        if how == "goes away":
            await until(lambda: player.stopped)
            leg._result(cut_short(player, 2))
        await until(lambda: spent(s))
        assert spent(s) == 9 * PRICE_UCR // 1000
        assert leg.answered[1].units == 9
        assert leg.covers(player.root(), 1) is True  # so its claim will be paid
        assert leg.answered[1].cancelled(leg.side)


LIES: dict[str, dict[str, Any]] = {
    "more than was told": {"completion_tokens": 3},
    "other text than was told": {"text": "9 7 "},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_stopped_answer_is_owed_at_most_what_was_told(tmp_path: Path, lie: str) -> None:
    """Attack: nobody can check such an answer by doing it again, so a provider counts what it never made."""
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, hold=True))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await begin(s, stream, player)
            await stream.send(LaneStop(1))
            await until(lambda: player.stopped)
            s.lanes.legs[player.lease]._result(cut_short(player, 2, **LIES[lie]))
            said = await anext(aiter(stream))
            assert isinstance(said, LaneResult)
            assert (said.code, said.units) == ("E1502", 0)
        assert s.lanes.legs[player.lease].answered[1].units == 0
        assert spent(s) == 0


async def test_nobody_may_cut_an_answer_short_unasked(tmp_path: Path) -> None:
    """Attack: answers that are never checked, by calling each of them cancelled."""
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, hold=True))
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await begin(s, stream, player)
            s.lanes.legs[player.lease]._result(cut_short(player, 2))
            said = await anext(aiter(stream))
            assert isinstance(said, LaneResult)
            assert (said.code, said.units) == ("E1502", 0)


async def test_a_task_that_waits_for_a_provider_is_freed_with_its_client(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        await s.player("rita", SERVE)
        secret = s.keys.make("app", 1_000_000)
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(paid(secret))
            await until(lambda: s.keys._operations)
        await until(lambda: not s.keys._operations)
        s.keys.reserve(secret, 1_000_000)


# by itself ------------------------------------------------------------------------------------------------------------


class Desk:
    """Payments without a lane; what is to be written waits for `write`."""

    def __init__(self, folder: Path) -> None:
        self.log = FullDisk(folder / "log.db")
        self.keys = ApiKeys(self.log, SystemClock(), SystemEntropy())
        self.secret = self.keys.make("app", 1_000_000)
        self.put: list[Message] = []
        self.stopped: list[int] = []
        self.due: list[Coroutine[None, None, None]] = []
        self.payments = Payments(self.keys, self._spawn, self.put.append, self.stopped.append)

    def _spawn(self, work: Coroutine[None, None, None], _name: str) -> Any:
        self.due.append(work)

    async def write(self) -> None:
        while self.due:
            await self.due.pop(0)


async def test_nothing_is_told_before_the_reservation_is_on_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.payments.reserve(paid(desk.secret))
    assert desk.payments.holds(LaneItem(1, b"early"))
    assert not desk.payments.holds(LaneItem(2, b"nobody pays for this one"))
    assert desk.put == []
    await desk.write()
    assert desk.put == [LaneItem(1, b"early")]
    assert not desk.payments.holds(LaneItem(1, b"late"))
    desk.log.close()


async def test_the_end_is_told_when_the_booking_is_on_disk(tmp_path: Path) -> None:
    desk, told = Desk(tmp_path), list[LaneResult]()
    desk.payments.reserve(paid(desk.secret))
    await desk.write()
    assert desk.payments.settle(LaneResult(1, b"v", 10), told.append)
    assert told == []
    await desk.write()
    assert told == [LaneResult(1, b"v", 10)]
    assert not desk.payments.settle(LaneResult(1, b"v", 10), told.append)  # once
    assert ApiKeys(desk.log, SystemClock(), SystemEntropy()).views()[0].spent_ucr == 10 * PRICE_UCR // 1000
    desk.log.close()


async def test_a_full_disk_ends_the_work_and_costs_nothing(tmp_path: Path) -> None:
    desk, told = Desk(tmp_path), list[LaneResult]()
    desk.payments.reserve(paid(desk.secret))
    assert desk.payments.holds(LaneItem(1, b"early"))
    desk.log.full = True
    await desk.write()
    assert (desk.put, desk.stopped) == ([], [1])
    assert desk.payments.holds(LaneItem(1, b"late"))
    assert desk.payments.settle(LaneResult(1, b"v", 10), told.append)
    desk.log.full = False
    await desk.write()
    assert [(one.code, one.units) for one in told] == [("E1603", 0)]
    assert desk.keys.views()[0].spent_ucr == 0
    desk.log.close()
