"""One lane to one provider: what it may say, what is owed for it, and what happens when it goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.lanes.lane_stage import JOB, SERVE, Player, countdown, generate, impatient, lane_stage

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import GenerateValue
from fallow.node.lanes.leg import Ask, Leg
from fallow.rules.steward import events as t
from fallow.sdk.lanes import AsyncLane
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneItem, LaneResult, LaneTask, Message


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


def unasked(_ask: Ask, _message: LaneItem | LaneResult) -> None:
    raise AssertionError("nobody asked")


def lying(**changes: Any) -> Any:
    """A countdown whose value and meter are changed."""

    async def answer(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        async for said in countdown(player, task):
            if isinstance(said, LaneResult):
                fields = dict(changes)
                units = fields.pop("units", None)
                value = msgspec.structs.replace(decode(GenerateValue, said.value), **fields)
                honest = value.prompt_tokens + value.completion_tokens
                yield LaneResult(said.number, encode(value), honest if units is None else units)
            else:
                yield said

    return answer


LIES: dict[str, dict[str, Any]] = {
    "more units than tokens": {"units": 10_000},
    "a longer answer than was asked for": {"completion_tokens": 11},
    "a prompt that was never sent": {"prompt_tokens": 5_000},
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_whose_meter_runs_too_fast_is_wrong_and_owed_nothing(tmp_path: Path, lie: str) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, lying(**LIES[lie])))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as wrong:
                await lane.run(generate())
        assert wrong.value.code == "E1502"
        assert len(player.asked) == 4  # it was asked again: there was nobody else
        assert all(record.units == 0 for record in s.lanes.legs[player.lease].answered.values())
        assert s.lanes.legs[player.lease].covers(player.root(), 1) is False


@pytest.mark.parametrize(
    ("exact", "logits", "right"),
    [(True, b"l" * 32, True), (True, b"", False), (False, b"", True), (False, b"l" * 32, True), (False, b"l", False)],
)
async def test_exact_answers_commit_to_their_logits(tmp_path: Path, exact: bool, logits: bytes, right: bool) -> None:
    """A cheat could have a cheaper model make the right text, and say nothing about what it was chosen from."""
    work = msgspec.structs.replace(SERVE, arithmetic="exact" if exact else "fp32")
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", work, lying(logits=logits)))
        assert s.lanes.legs[player.lease]._request().exact is exact
        async with AsyncLane(s.link, JOB) as lane:
            if right:
                assert decode(GenerateValue, (await lane.run(generate(2))).value).logits == logits
                return
            with pytest.raises(FallowError) as wrong:
                await lane.run(generate(2))
        assert wrong.value.code == "E1502"
        assert all(record.units == 0 for record in s.lanes.legs[player.lease].answered.values())


async def test_what_is_claimed_must_be_what_was_streamed(tmp_path: Path) -> None:
    """A cheat could tell the user nonsense and claim the right answer, which every check would find right."""
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, lying(text="something else")))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as wrong:
                async for _ in lane.stream(generate(3)):
                    pass
        assert wrong.value.code == "E1502"
        assert len(player.asked) == 1  # what was told already cannot be taken back: no second try
        assert s.lanes.legs[player.lease].answered[1].units == 0


async def test_an_echo_costs_one_unit(tmp_path: Path) -> None:
    async def dear(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        yield LaneResult(task.number, task.params, 2)

    async with lane_stage(tmp_path) as s:
        await s.ready(await s.player("rita", answer=dear))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as wrong:
                await lane.run(b"x")
        assert wrong.value.code == "E1502"


@pytest.mark.parametrize(
    ("said", "heard"),
    [("E1707", "E1707"), ("E1904", "E1904"), ("E1301", "E1806"), ("nonsense", "E1806"), ("E1402", "E1806"),
     ("E9001", "E1806"), ("E1704", "E1704")],
)  # fmt: skip
async def test_a_provider_speaks_of_its_worker_and_the_request_only(tmp_path: Path, said: str, heard: str) -> None:
    async def refuse(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        yield LaneResult(task.number, b"kept?", 9, said, "why \x1b[31mnot" + "x" * 5_000)

    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", answer=refuse))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as refused:
                await lane.run(b"x")
        assert refused.value.code == heard
        assert "\x1b" not in refused.value.what
        assert len(refused.value.what) < 1_100
        record = s.lanes.legs[player.lease].answered[1]
        assert (record.value, record.units) == (b"", 0)


async def test_answers_and_pieces_that_nobody_asked_for_earn_nothing(tmp_path: Path) -> None:
    async def eager(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        yield LaneItem(task.number, b"not a stream")
        yield LaneResult(task.number + 1_000, b"too much", 1)
        yield LaneResult(task.number, task.params, 1)
        yield LaneResult(task.number, b"twice", 1)

    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", answer=eager))
        async with AsyncLane(s.link, JOB) as lane:
            assert [answer.value for answer in await lane.map([b"a", b"b"])] == [b"a", b"b"]
        answered = s.lanes.legs[player.lease].answered
        assert {number: record.value for number, record in answered.items()} == {1: b"a", 2: b"b"}


async def test_a_broken_lane_is_opened_again_and_nothing_is_sent_twice_on_it(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, countdown, dies_after=0))
        async with AsyncLane(s.link, JOB) as lane:
            values = [decode(GenerateValue, answer.value).text for answer in await lane.map([generate(2)] * 20)]
        assert values == ["9 8 "] * 20
        numbers = [task.number for task in player.asked]
        assert numbers == sorted(set(numbers))
        assert player.opened == 2


async def test_a_provider_that_cannot_load_the_work_says_whose_fault_it_is(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita", refuse="E1701")
        s.lanes.prepare(player.plan)
        event = await s.told.wait(t.LaneUnready)
        assert (event.lease, event.code, event.retryable) == (player.lease, "E1701", False)


async def test_numbers_are_never_used_twice_even_after_a_crash(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita"))
        async with AsyncLane(s.link, JOB, receipts=True) as lane:
            await lane.map([b"a", b"b", b"c"])
        again = Leg(s.us, player.plan, (), lambda ask: None, _told, lambda lease: 100)
        again.recall()
        assert [record.value for record in again.answered.values()] == [b"a", b"b", b"c"]
        assert not again.idle  # three units are answered and not claimed
        again.ready = True
        ask = Ask(b"d", 0, False, unasked, units_most=1)
        assert again.take(ask)
        assert ask.number > max(task.number for task in player.asked)


async def _told(_leg: Leg, _error: FallowError | None) -> None:
    return None


async def test_no_more_is_sent_than_the_escrow_holds(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita")
        leg = Leg(s.us, player.plan, (), lambda ask: None, _told, lambda lease: 3)
        leg.ready = True
        assert [leg.take(Ask(b"", 0, False, unasked)) for _ in range(5)] == [True, True, True, False, False]
