"""Checking lane batches: cheats are caught with evidence that the bank takes, and nobody is accused unjustly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.node.lanes.lane_stage import (
    ECHO,
    JOB,
    SERVE,
    Answer,
    LaneStage,
    Player,
    countdown,
    echo,
    generate,
    impatient,
    lane_stage,
)

from fallow.kinds.generate.tasks import CANCELLED, GenerateValue
from fallow.node.lanes import audit
from fallow.node.lanes.journal import keep_leaves
from fallow.rules.steward import events as t
from fallow.sdk.lanes import AsyncLane
from fallow.wire.claims import evidence_holds, setting_hash
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ClaimRoot
from fallow.wire.local import OpenJobLane
from fallow.wire.messages import LaneItem, LaneResult, LaneStop, LaneTask, Message


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    monkeypatch.setattr(audit, "CLAIM_POLL_S", 0.01)
    monkeypatch.setattr(audit, "CLAIM_WAIT_S", 0.3)
    monkeypatch.setattr(audit, "ANSWER_S", 1.0)


async def lie(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
    yield LaneResult(task.number, b"", 1)


async def refuse(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
    yield LaneResult(task.number, b"", 0, "E1704", "the worker died")


async def hang(_player: Player, _task: LaneTask) -> AsyncIterator[Message]:
    return
    yield


async def run(s: LaneStage, first: Answer, *others: Answer) -> t.AuditLane:
    """The first provider answers three tasks and claims them; -> the order to check the second of them."""
    suspect = await s.ready(await s.player("rita", ECHO, first))
    params = [b"a", b"b", b"c"]
    async with AsyncLane(s.link, JOB) as lane:
        await lane.map(params) if first is not refuse else await _failing(lane, params)
    await s.claim(suspect, suspect.root())
    event = await s.told.wait(t.PeerClaimedBatch)
    players = [await s.ready(await s.player(f"peer{n}", ECHO, answer)) for n, answer in enumerate(others)]
    return t.AuditLane(
        suspect.lease, event.claim_hash, event.first, (1,), tuple(player.lease for player in players), 2
    )  # fmt: skip


async def _failing(lane: AsyncLane, params: list[bytes]) -> None:
    for one in params:
        with pytest.raises(Exception, match="died"):
            await lane.run(one)


async def claim_audits(s: LaneStage, order: t.AuditLane) -> None:
    """The auditors sign for what they answered, as they would a quarter of a second later."""
    for number, lease in enumerate(order.auditors):
        player = s.facts.players[lease]
        if player.answered:
            await s.claim(player, player.root(sequence=number + 1))


async def test_equal_answers_pass(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        order = await run(s, echo, echo, echo)
        s.lanes.audit(order)
        event = await s.told.wait(t.LaneAudited)
        assert (event.lease, event.claim_hash, event.auditors) == (order.lease, order.claim_hash, order.auditors[:1])
        assert [task.params for task in s.facts.players[order.auditors[0]].asked] == [b"b"]


async def test_the_sample_is_of_the_answers_that_are_paid_for(tmp_path: Path) -> None:
    """Refusals earn nothing: a check that meets one has checked nothing."""

    async def choosy(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        async for message in lie(player, task) if task.params == b"c" else refuse(player, task):
            yield message

    async with lane_stage(tmp_path) as s:
        suspect = await s.ready(await s.player("rita", ECHO, choosy))
        async with AsyncLane(s.link, JOB) as lane:
            await _failing(lane, [b"a", b"b"])
            await lane.run(b"c")
        await s.claim(suspect, suspect.root())
        event = await s.told.wait(t.PeerClaimedBatch)
        players = [await s.ready(await s.player(f"peer{n}", ECHO, echo)) for n in range(2)]
        auditors = tuple(player.lease for player in players)
        s.lanes.audit(t.AuditLane(suspect.lease, event.claim_hash, event.first, (0,), auditors, 2))
        await until_answered(players)
        await claim_audits(s, t.AuditLane(suspect.lease, event.claim_hash, event.first, (0,), auditors, 2))
        caught = await s.told.wait(t.LaneCaught)
        assert caught.task.params == b"c"
        assert event.paid == 1
        assert event.count == event.paid + event.refused


async def test_what_was_asked_as_a_check_is_not_checked_again(tmp_path: Path) -> None:
    """Else every check would be worth another one, and a lane that is checked in full would never come to rest."""
    async with lane_stage(tmp_path) as s:
        order = await run(s, echo, echo, echo)
        s.lanes.audit(order)
        await s.told.wait(t.LaneAudited)
        auditor = s.facts.players[order.auditors[0]]
        await s.claim(auditor, auditor.root())
        claimed = await s.told.wait(t.PeerClaimedBatch, 2)
        others = (order.lease, order.auditors[1])
        again = t.AuditLane(auditor.lease, claimed.claim_hash, claimed.first, (0,), others, 2)
        s.lanes.audit(again)
        event = await s.told.wait(t.LaneAudited, 2)
        assert (event.lease, event.auditors) == (auditor.lease, (order.lease,))
        assert [len(player.asked) for player in s.facts.players.values()] == [3, 1, 0]


async def test_a_check_that_found_something_else_may_be_checked_itself(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        order = await run(s, echo, lie, echo)
        s.lanes.audit(order)
        await s.told.wait(t.LaneUnchecked)
        liar = s.facts.players[order.auditors[0]]
        await s.claim(liar, liar.root())
        claimed = await s.told.wait(t.PeerClaimedBatch, 2)
        others = (order.lease, order.auditors[1])
        s.lanes.audit(t.AuditLane(liar.lease, claimed.claim_hash, claimed.first, (0,), others, 2))
        asked = [s.facts.players[lease].asked for lease in others]
        async with asyncio.timeout(10):
            while [len(tasks) for tasks in asked] != [4, 2]:
                await asyncio.sleep(0.01)


async def test_a_lie_is_caught_with_evidence(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        order = await run(s, lie, echo, echo)
        s.lanes.audit(order)
        auditors = [s.facts.players[lease] for lease in order.auditors]
        await until_answered(auditors)
        await claim_audits(s, order)
        event = await s.told.wait(t.LaneCaught)
        assert event.task.params == b"b"
        assert len(event.others) == 2
        word = setting_hash(s.lanes.legs[order.lease].setting)
        for evidence in (event.accused, *event.others):
            root = decode(ClaimRoot, evidence.claim.body)
            assert evidence_holds(evidence, event.task, root.root, root.count, word)
            assert not evidence_holds(evidence, event.task, root.root, root.count)
        changed = msgspec.structs.replace(event.accused, output=bytes(32))
        root = decode(ClaimRoot, changed.claim.body)
        assert not evidence_holds(changed, event.task, root.root, root.count, word)


async def test_the_right_words_from_other_logits_are_caught(tmp_path: Path) -> None:
    """Text and counts are right, as a cheaper model's often are; only the commitment tells."""

    async def telling(player: Player, task: LaneTask, logits: bytes) -> AsyncIterator[Message]:
        async for said in countdown(player, task):
            if isinstance(said, LaneResult):
                value = msgspec.structs.replace(decode(GenerateValue, said.value), logits=logits)
                said = msgspec.structs.replace(said, value=encode(value))
            yield said

    def honest(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        return telling(player, task, b"l" * 32)

    def cheap(player: Player, task: LaneTask) -> AsyncIterator[Message]:
        return telling(player, task, b"m" * 32)

    work = msgspec.structs.replace(SERVE, arithmetic="exact")
    async with lane_stage(tmp_path) as s:
        suspect = await s.ready(await s.player("rita", work, cheap))
        async with AsyncLane(s.link, JOB) as lane:
            await lane.run(generate(2))
        await s.claim(suspect, suspect.root())
        event = await s.told.wait(t.PeerClaimedBatch)
        peers = [await s.ready(await s.player(f"peer{n}", work, honest)) for n in range(2)]
        leases = tuple(peer.lease for peer in peers)
        order = t.AuditLane(suspect.lease, event.claim_hash, event.first, (0,), leases, 2)
        s.lanes.audit(order)
        await until_answered(peers)
        await claim_audits(s, order)
        caught = await s.told.wait(t.LaneCaught)
        assert (caught.lease, len(caught.others)) == (suspect.lease, 2)


async def until_answered(players: list[Player]) -> None:
    import asyncio

    async with asyncio.timeout(10):
        while not all(player.answered for player in players):
            await asyncio.sleep(0.01)


async def test_accusers_who_do_not_sign_convict_nobody(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        s.lanes.audit(await run(s, lie, echo, echo))
        assert "not signed" in (await s.told.wait(t.LaneUnchecked)).what


async def test_one_lying_auditor_does_not_convict_an_honest_provider(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        s.lanes.audit(await run(s, echo, lie))
        await s.told.wait(t.LaneUnchecked)
    async with lane_stage_again(tmp_path) as s:
        order = await run(s, echo, lie, echo, echo)
        s.lanes.audit(order)
        assert (await s.told.wait(t.LaneAudited)).auditors == tuple(sorted(order.auditors[1:]))


def lane_stage_again(folder: Path):  # type: ignore[no-untyped-def]
    (folder / "again").mkdir()
    return lane_stage(folder / "again")


@pytest.mark.parametrize("others", [(), (refuse,), (hang,)])
async def test_a_check_that_nobody_does_is_no_check(tmp_path: Path, others: tuple[Answer, ...]) -> None:
    async with lane_stage(tmp_path) as s:
        s.lanes.audit(await run(s, echo, *others))
        assert (await s.told.wait(t.LaneUnchecked)).lease
        assert not any(isinstance(event, t.LaneCaught) for event in s.told.events)


async def test_a_refusal_earns_nothing_and_is_no_lie(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        s.lanes.audit(await run(s, refuse, echo, echo))
        await s.told.wait(t.LaneUnchecked)


async def test_an_answer_that_was_lost_on_its_way_is_left_out(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        order = await run(s, echo, echo, echo)
        leg = s.lanes.legs[order.lease]
        leaves = tuple(leg.answered[number].leaf(setting_hash(leg.setting)) for number in (1, 2, 3))
        del leg.answered[2]
        keep_leaves(s.us.log, order.lease, order.first, leaves)
        s.lanes.audit(msgspec.structs.replace(order, indexes=(2,)))  # the third that is paid for: there is none
        await s.told.wait(t.LaneUnchecked)
        s.lanes.audit(msgspec.structs.replace(order, indexes=(0, 1)))
        event = await s.told.wait(t.LaneAudited)
        assert [task.params for task in s.facts.players[event.auditors[0]].asked] == [b"a", b"c"]


async def test_a_lease_that_is_closed_meanwhile_is_unchecked(tmp_path: Path) -> None:
    async with lane_stage(tmp_path) as s:
        order = await run(s, lie, echo, echo)
        s.lanes.close(order.lease)
        s.lanes.audit(order)
        await s.told.wait(t.LaneUnchecked)


async def test_an_answer_that_its_client_cut_short_is_not_held_against_anyone(tmp_path: Path) -> None:
    """Where it was cut depends on the moment: the others' answers are whole."""
    async with lane_stage(tmp_path) as s:
        suspect = await s.ready(await s.player("rita", SERVE, hold=True))
        leg = s.lanes.legs[suspect.lease]
        async with s.link.open(OpenJobLane(JOB)) as stream:
            await stream.send(LaneTask(1, generate(), stream=True))
            await until_asked(suspect)
            await leg._heard(LaneItem(1, b"9 "))
            await stream.send(LaneStop(1))
            while not suspect.stopped:
                await asyncio.sleep(0.01)
            result = LaneResult(1, encode(GenerateValue("9 ", CANCELLED, 7, 1)), 8)
            suspect.answered.append((suspect.asked[0], result))
            leg._result(result)
        await s.claim(suspect, suspect.root())
        event = await s.told.wait(t.PeerClaimedBatch)
        peers = [await s.ready(await s.player(f"peer{n}", SERVE, countdown)) for n in range(2)]
        order = t.AuditLane(
            suspect.lease, event.claim_hash, event.first, (0,), tuple(peer.lease for peer in peers), 2
        )  # fmt: skip
        s.lanes.audit(order)
        unchecked = await s.told.wait(t.LaneUnchecked)
        assert unchecked.claim_hash == event.claim_hash
        assert not any(peer.asked for peer in peers)


async def until_asked(player: Player) -> None:
    async with asyncio.timeout(10):
        while not player.asked:
            await asyncio.sleep(0.01)
