"""Lanes over several providers: who gets a task, what happens when a provider goes, and which claims count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.node.lanes.lane_stage import JOB, SERVE, WORDS, LaneStage, Player, countdown, generate, impatient, lane_stage

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import Generate
from fallow.node.lanes import lane as lane_module
from fallow.node.lanes.journal import claim_leaves, find_claim
from fallow.node.router import Caller
from fallow.rules.steward import events as t
from fallow.sdk.lanes import Answer, AsyncLane
from fallow.wire.claims import merkle_root
from fallow.wire.codec import decode
from fallow.wire.messages import GetLaneLeaves, LaneLeaves, LaneResult, LaneTask, Message


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    monkeypatch.setattr(lane_module, "COVER_TRIES", 3)
    monkeypatch.setattr(lane_module, "COVER_EVERY_S", 0.01)
    monkeypatch.setattr(lane_module, "LOOK_EVERY_S", 0.02)


async def two(s: LaneStage) -> tuple[Player, Player]:
    return await s.ready(await s.player("rita")), await s.ready(await s.player("rolf"))


async def test_tasks_are_spread_over_the_providers(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        first, second = await two(s)
        params = [b"%d" % n for n in range(3_000)]
        async with AsyncLane(s.link, JOB) as lane:
            assert [answer.value for answer in await lane.map(params)] == params
        assert len(first.asked) + len(second.asked) == 3_000
        assert min(len(first.asked), len(second.asked)) > 300


async def test_a_stream_goes_on_at_another_provider_from_where_it_broke(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        dying = await s.ready(await s.player("rita", SERVE, countdown, dies_after=4))
        other = await s.player("rolf", SERVE, countdown)
        async with AsyncLane(s.link, JOB) as lane:
            pieces: list[str] = []
            async for piece in lane.stream(generate(10)):
                if isinstance(piece, Answer):
                    break
                pieces.append(piece.decode())
                if len(pieces) == 1:
                    dying.refuse = "E1801"
                    await s.ready(other)
        assert pieces == WORDS
        asked = decode(Generate, other.asked[0].params)
        assert (asked.resume, asked.max_tokens) == ("9 8 7 6 ", 6)
        assert len(dying.asked) == 1


async def test_a_task_that_breaks_every_provider_is_given_up(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:

        async def poison(player: Player, task: LaneTask):  # type: ignore[no-untyped-def]
            if task.params == b"poison":
                raise FallowError("E1801", "the worker took the provider down")
            yield LaneResult(task.number, task.params, 1)

        await s.ready(await s.player("rita", answer=poison))
        async with AsyncLane(s.link, JOB) as lane:
            with pytest.raises(FallowError) as lost:
                await lane.run(b"poison")
            assert lost.value.code == "E1801"
            assert (await lane.run(b"fine")).value == b"fine"


async def test_a_leg_without_money_does_not_stop_the_others(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        poor, rich = await two(s)
        s.facts.room[poor.lease] = 0
        async with AsyncLane(s.link, JOB) as lane:
            await lane.map([b"x"] * 50)
        assert (len(poor.asked), len(rich.asked)) == (0, 50)


async def test_a_task_that_no_lease_can_pay_is_refused_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "STARVED_S", 0.1)
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita", SERVE, countdown))
        s.facts.room[player.lease] = 400
        async with AsyncLane(s.link, JOB) as lane:
            dear, cheap = await asyncio.gather(
                lane.run(generate(500)), lane.run(generate(2)), return_exceptions=True
            )  # fmt: skip
        assert isinstance(dear, FallowError)
        assert dear.code == "E1205"
        assert isinstance(cheap, Answer)
        assert cheap.units == 9


async def test_tasks_wait_for_a_provider_and_go_out_when_one_is_ready(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita")
        async with AsyncLane(s.link, JOB) as lane:
            waiting = s.pool.tasks.create_task(lane.map([b"a", b"b"]))
            await asyncio.sleep(0.05)
            await s.ready(player)
            assert [answer.value for answer in await waiting] == [b"a", b"b"]


async def test_the_end_of_the_job_ends_its_lanes(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        async with AsyncLane(s.link, JOB) as lane:

            async def cancel() -> None:
                await asyncio.sleep(0.05)
                s.lanes.end_job(JOB, "E1402", "You cancelled it.")

            ended, _ = await asyncio.gather(lane.run(b"nobody will answer"), cancel(), return_exceptions=True)
            assert isinstance(ended, FallowError)
            assert ended.code == "E1402"
        with pytest.raises(FallowError) as closed:
            async with AsyncLane(s.link, JOB) as lane:
                await lane.run(b"too late")
        assert closed.value.code == "E1402"


# claims ---------------------------------------------------------------------------------------------------------------


async def answered(s: LaneStage, count: int = 5) -> Player:
    player = await s.ready(await s.player("rita"))
    async with AsyncLane(s.link, JOB) as lane:
        await lane.map([b"%d" % n for n in range(count)])
    return player


async def test_a_claim_over_what_was_received_counts_once_it_is_kept(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await answered(s)
        await s.claim(player, player.root())
        event = await s.told.wait(t.PeerClaimedBatch)
        assert (event.first, event.count, event.units) == (1, 5, 5)
        assert find_claim(s.us.log, player.lease, 3) == event
        assert find_claim(s.us.log, player.lease, 6) is None
        assert s.lanes.legs[player.lease].idle


async def test_a_claim_over_other_answers_ends_the_providers_work(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await answered(s)
        others = [(task, LaneResult(result.number, b"other", 1)) for task, result in player.answered]
        for number, root in enumerate(
            [player.root(others), player.root([(a, LaneResult(b.number, b.value, 2)) for a, b in player.answered])], 1
        ):
            await s.claim(player, root)
            await s.told.wait(t.PeerLeaving, number)
        assert not any(isinstance(event, t.PeerClaimedBatch) for event in s.told.events)
        assert s.us.log.keys("lane-claim/") == []


async def test_a_claim_over_answers_that_never_came_is_owed_nothing(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await answered(s)
        ghost = (LaneTask(6, b"ghost"), LaneResult(6, b"ghost", 1))
        before = len(s.told.events)
        await s.claim(player, player.root([*player.answered, ghost]))
        huge = player.root()
        for count in (0, 1 << 60):
            signed, digest = player.sign(huge, s.us.bank_account)
            changed = type(huge)(huge.lease, 1, huge.root, count, huge.units)
            await s.lanes.claimed(player.lease, 1, signed, digest, changed, 1)
        events = s.told.events[before:]
        assert not any(isinstance(event, t.PeerClaimedBatch) for event in events)


async def mixed(s: LaneStage, leaves: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> tuple[Player, int]:
    """Five answers arrived, two more were lost, and one root is over all: -> the provider, and how often it was asked
    for the leaves, which are shown as changed by `leaves`."""
    player = await answered(s)
    player.hold = True
    asked = 0
    async with AsyncLane(s.link, JOB) as lane:
        waiting = [asyncio.ensure_future(lane.run(b"lost %d" % n)) for n in range(2)]
        while len(player.asked) < 7:
            await asyncio.sleep(0)
        pairs = [*player.answered, *((task, LaneResult(task.number, b"lost", 1)) for task in player.asked[5:])]

        @player.node.router.on(GetLaneLeaves)
        async def _(_caller: Caller, request: GetLaneLeaves) -> Message:
            nonlocal asked
            asked += 1
            assert request == GetLaneLeaves(player.lease, 1)
            return LaneLeaves(leaves(tuple(player.leaf(*pair) for pair in pairs)))

        await s.claim(player, player.root(pairs))
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return player, asked


async def test_of_a_claim_over_more_than_arrived_what_arrived_is_paid(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player, asked = await mixed(s, lambda leaves: leaves)
        event = await s.told.wait(t.PeerClaimedBatch)
        assert (asked, event.first, event.count, event.units) == (1, 1, 7, 5)
        leg = s.lanes.legs[player.lease]
        found = claim_leaves(s.us.log, event, leg.answered)
        assert found is not None
        assert len(found) == 7
        assert merkle_root(found[:5]) == player.root().root, "evidence against it can still be shown"
        assert not any(number in leg.flying for number in (6, 7)), "what comes after all earns nothing"


@pytest.mark.parametrize("shown", [lambda leaves: leaves[:5], lambda leaves: leaves[::-1], lambda leaves: ()])
async def test_leaves_that_are_not_those_of_the_claim_earn_nothing(tmp_path: Path, shown: Any) -> None:
    async with lane_stage(tmp_path) as s:
        player, asked = await mixed(s, shown)
        assert asked == 1
        assert not any(isinstance(event, t.PeerClaimedBatch) for event in s.told.events)
        assert s.us.log.keys("lane-claim/") == []
        assert len(player.answered) == 5


async def test_a_claim_that_comes_before_the_lane_is_open_is_heard_again(tmp_path: Path) -> None:
    """After a restart the lease's events may come before its answers are recalled: the provider must not lose them."""
    async with lane_stage(tmp_path) as s:
        player = await s.player("rita")
        player.answered.append((LaneTask(1, b"x"), LaneResult(1, b"x", 1)))
        with pytest.raises(FallowError) as early:
            await s.claim(player, player.root())
        assert early.value.retryable


async def test_a_lane_that_is_ready_says_so_again(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        player = await s.ready(await s.player("rita"))
        await s.ready(player)
        assert player.opened == 1


async def test_a_closed_lease_gets_nothing_more(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        first, second = await two(s)
        s.lanes.close(first.lease)
        async with AsyncLane(s.link, JOB) as lane:
            await lane.map([b"x"] * 20)
        assert (len(first.asked), len(second.asked)) == (0, 20)
