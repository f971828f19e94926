"""Lanes: answers in bulk, claims that commit to exactly the answers, back-pressure, and peers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.provider.provider_net import market

from fallow.errors import FallowError
from fallow.node.provider.lane import CALM_S, PRESSED_ANSWERS, SILENT_S, STARVED_S, ServedLane
from fallow.wire.claims import lane_leaf, merkle_root, params_hash, setting_hash, value_hash
from fallow.wire.documents import ClaimRoot
from fallow.wire.eip712 import open_signed
from fallow.wire.messages import LaneClaimed, LaneItem, LaneReady, LaneResult, LaneStop, LaneTask, Ok
from fallow.wire.tasks import LaneSetting
from fallow.wire.worker import LaneAnswers, LaneBatch

SETTING = setting_hash(LaneSetting("echo"))


def leaf(task: LaneTask, value: bytes, units: int) -> bytes:
    return lane_leaf(task.number, params_hash(task.params), task.seed, value_hash(value), units, SETTING)


async def answers(stream: Any, count: int) -> list[LaneResult]:
    found: list[LaneResult] = []
    async with asyncio.timeout(30):
        async for message in stream:
            if isinstance(message, LaneResult):
                found.append(message)
            if len(found) == count:
                break
    return found


async def test_every_answer_is_claimed_once_under_a_signed_root(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        tasks = [LaneTask(number, b"%d" % number, seed=number) for number in range(1, 1_501)]
        async with buyer.lane(window=2_000) as stream:
            for task in tasks:
                await stream.send(task)
            found = await answers(stream, len(tasks))
        assert [(a.number, a.value, a.units) for a in found] == [(t.number, t.params, 1) for t in tasks]
        first = 1
        while first <= len(tasks):
            event = (await buyer.events(0, lambda e, at=first: e.body.first == at))[-1]
            assert isinstance(event.body, LaneClaimed)
            seller = buyer.seller.services.identity.account
            root = open_signed(event.body.claim, ClaimRoot, buyer.services.bank_account, seller)
            covered = tasks[first - 1 : first - 1 + root.count]
            assert root.units == root.count
            assert root.root == merkle_root([leaf(task, task.params, 1) for task in covered])
            first += root.count


async def test_work_pauses_when_unpaid_and_goes_on_with_a_voucher(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open(cap_ucr=60_000)
        async with buyer.lane(window=4_096) as stream:

            async def ask(first: int, last: int) -> None:
                for number in range(first, last + 1):
                    await stream.send(LaneTask(number, b""))

            price = buyer.lease_doc.price_ucr
            credit = 50_000 * 1_000 // price
            answered = 0
            while answered < credit:
                step = min(4_000, credit - answered)
                await ask(answered + 1, answered + step)
                await answers(stream, step)
                answered += step
            await ask(answered + 1, answered + 10)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await answers(stream, 10)
            await buyer.pay(50_000)
            assert len(await answers(stream, 10)) == 10


async def test_a_new_lane_takes_the_place_of_the_old(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        async with buyer.lane() as old:
            await old.send(LaneTask(1, b"a"))
            await answers(old, 1)
            async with buyer.lane() as new:
                await new.send(LaneTask(5, b"b"))
                assert [a.value for a in await answers(new, 1)] == [b"b"]
                with pytest.raises(FallowError):
                    await answers(old, 1)


@pytest.mark.parametrize(
    "cheat",
    [[LaneTask(1, b""), LaneTask(1, b"")], [LaneTask(3, b""), LaneTask(2, b"")], [Ok()], [LaneTask(0, b"")]],
)
async def test_numbers_that_repeat_and_nonsense_end_the_lane(tmp_path: Path, cheat: list[Any]) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        async with buyer.lane() as stream:
            with pytest.raises(FallowError) as refused:
                for message in cheat:
                    await stream.send(message)
                await answers(stream, 3)
        assert refused.value.code in ("E1102", "E1801")


class Desk:
    """A worker and a clock in memory, so that a lane can be driven step by step."""

    def __init__(self, allowance: int = 1 << 30, window: int = 100) -> None:
        self.sent: list[Any] = []
        self.claims: list[tuple[int, int, int, bytes]] = []
        self.paused = False
        self.killed = ""
        self.now_s = 1.0
        self.allowance = allowance
        self.lane = ServedLane(window, self, self, lambda: self.allowance, self.claim, SETTING)  # type: ignore[arg-type]

    def claim(self, first: int, count: int, units: int, root: bytes) -> asyncio.Future[None]:
        self.claims.append((first, count, units, root))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def kill(self, why: str) -> None:
        self.killed = why

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("driven by hand")

    async def ask(self, *numbers: int) -> None:
        async def inputs() -> AsyncIterator[LaneTask]:
            for number in numbers:
                yield LaneTask(number, b"p%d" % number)

        await self.lane.read(inputs())
        await asyncio.sleep(0)

    def answer(self, *numbers: int, code: str = "") -> None:
        self.lane.on_worker(LaneAnswers(tuple(LaneResult(number, b"v", 1, code) for number in numbers)))

    async def out(self, count: int) -> list[Any]:
        found: list[Any] = []
        async for item in self.lane.answers():
            found.append(item)
            if len(found) == count:
                break
        return found


async def test_what_arrives_together_goes_to_the_worker_together() -> None:
    desk = Desk()
    await desk.ask(1, 2, 3)
    (batch,) = desk.sent
    assert isinstance(batch, LaneBatch)
    assert [task.number for task in batch.tasks] == [1, 2, 3]


async def test_answers_ripen_before_they_are_claimed_and_a_slow_one_holds_up_those_behind() -> None:
    desk = Desk()
    await desk.ask(1, 2, 3)
    desk.answer(3, 1)
    desk.lane.claim_ripe()
    assert desk.claims == []
    desk.lane.claim_ripe()
    assert [claim[:3] for claim in desk.claims] == [(1, 1, 1)]
    desk.answer(2)
    desk.lane.claim_ripe()
    desk.lane.claim_ripe()
    assert [claim[:3] for claim in desk.claims] == [(1, 1, 1), (2, 2, 2)]


async def first_claim_s(desk: Desk, count: int) -> float:
    """When `count` answers given at once are claimed by a lane that is left alone."""
    began_s = desk.now_s

    async def sleep(seconds: float) -> None:
        desk.now_s += seconds
        if desk.claims:
            raise asyncio.CancelledError

    desk.sleep = sleep  # type: ignore[method-assign]
    await desk.ask(*range(1, count + 1))
    desk.answer(*range(1, count + 1))
    with pytest.raises(asyncio.CancelledError):
        await desk.lane.claim_regularly()
    assert [claim[:2] for claim in desk.claims] == [(1, count)]
    return desk.now_s - began_s


async def test_few_answers_wait_for_one_claim_and_many_or_much_money_do_not() -> None:
    few = await first_claim_s(Desk(), 3)
    many = await first_claim_s(Desk(window=PRESSED_ANSWERS), PRESSED_ANSWERS)
    poor = await first_claim_s(Desk(allowance=8), 3)
    assert CALM_S < few <= 3 * CALM_S
    assert many < CALM_S
    assert poor < CALM_S


async def test_a_failed_answer_is_worth_nothing() -> None:
    desk = Desk()
    await desk.ask(1)
    desk.answer(1, code="E1402")
    desk.lane.close()
    ((first, count, units, root),) = desk.claims
    assert (first, count, units) == (1, 1, 0)
    assert root == merkle_root([leaf(LaneTask(1, b"p1"), b"", 0)])


async def test_the_worker_cannot_answer_twice_or_what_nobody_asked() -> None:
    desk = Desk()
    await desk.ask(1)
    desk.answer(1, 1, 7)
    desk.lane.on_worker(LaneAnswers((LaneItem(9, b"x"),)))
    assert [item.number for item in await desk.out(1)] == [1]
    desk.lane.close()
    assert [claim[:3] for claim in desk.claims] == [(1, 1, 1)]


async def test_a_full_window_ends_the_lane() -> None:
    desk = Desk(window=2)
    await desk.ask(1, 2, 3)
    with pytest.raises(FallowError) as full:
        await desk.out(1)
    assert full.value.code == "E1803"


async def test_tasks_that_wait_too_long_for_money_are_handed_back() -> None:
    desk = Desk(allowance=0)
    await desk.ask(1, 2)
    assert desk.sent == []
    desk.now_s += STARVED_S
    desk.lane._hand_back()
    assert [(item.number, item.code) for item in await desk.out(2)] == [(1, "E1803"), (2, "E1803")]


async def test_a_worker_that_computes_for_ever_is_ended() -> None:
    """A template may hold on to the processor where nothing in the worker can interrupt it."""
    desk = Desk()
    desk.now_s += SILENT_S  # nobody asked for anything
    desk.lane._end_the_stuck()
    await desk.ask(1, 2)
    desk.now_s += SILENT_S - 1
    desk.answer(1)
    desk.now_s += SILENT_S - 1
    desk.lane._end_the_stuck()
    assert not desk.killed
    desk.now_s += 1
    desk.lane._end_the_stuck()
    assert not desk.killed  # the answer has not been read yet
    await desk.out(1)
    desk.lane._end_the_stuck()
    assert desk.killed.startswith("it said nothing")


async def test_a_requester_that_does_not_read_holds_back_the_worker() -> None:
    desk = Desk(window=4_096)
    await desk.ask(1)
    for _ in range(9):
        desk.lane.on_worker(LaneAnswers(tuple(LaneItem(1, b"x") for _ in range(1_000))))
    assert desk.paused
    await desk.out(1)
    assert not desk.paused


async def test_closing_drops_what_is_under_way() -> None:
    desk = Desk()
    await desk.ask(1, 2)
    desk.answer(1)
    desk.lane.close()
    desk.lane.close()
    assert desk.sent[-1].numbers == (2,)
    desk.answer(2)
    assert [claim[:3] for claim in desk.claims] == [(1, 1, 1)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.randoms(), st.lists(st.booleans(), max_size=30))
def test_claims_cover_every_answer_once_in_order_whatever_the_order_of_answers(
    gaps: list[int], random: Any, ticks: list[bool]
) -> None:
    async def play() -> None:
        desk = Desk()
        numbers = [sum(gaps[: index + 1]) for index in range(len(gaps))]
        await desk.ask(*numbers)
        order = list(numbers)
        random.shuffle(order)
        for number, tick in zip(order, ticks + [False] * len(order), strict=False):
            desk.answer(number)
            if tick:
                desk.lane.claim_ripe()
        desk.lane.close()
        covered = [number for first, count, _, _ in desk.claims for number in range(first, first + count)]
        assert covered == numbers

    asyncio.run(play())


async def test_a_lane_says_when_it_is_ready_and_stops_what_is_not_wanted(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        async with buyer.lane() as stream:
            assert isinstance(await anext(aiter(stream)), LaneReady)
            await stream.send(LaneTask(1, b"x"))
            await stream.send(LaneStop(1))
            (answer,) = await answers(stream, 1)
            assert answer.number == 1
