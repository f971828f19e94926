"""Receipts from a real pool: they hold, they are not had too early, and one byte changed is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from tests.node.steward.steward_net import Desk, batch, lane_job, office

from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError
from fallow.node.lanes.journal import find_claim
from fallow.node.provider import lane as provider_lane
from fallow.node.steward.receipts import Receipts
from fallow.rules.steward import events as t
from fallow.rules.steward.proof import Anchor, Proof, prove
from fallow.sdk.lanes import AsyncLane
from fallow.wire.receipt_checks import intact, verify
from fallow.wire.receipts import LaneWork, Receipt, TaskWork, read_receipt

JOB = b"j" * 32


def receipts(desk: Desk) -> Receipts:
    return Receipts(desk.services, desk.steward.records, desk.steward.state)


def assert_it_holds(data: bytes, desk: Desk) -> Proof:
    found = prove(data, Anchor(desk.services.bank_account, "the bank of the test"))
    assert found.outcome == "holds", [check for check in found.checks if not check.ok]
    assert prove(data, None).outcome == "not anchored"
    return found


def assert_it_holds_and_no_byte_may_change(data: bytes, desk: Desk) -> None:
    assert_it_holds(data, desk)
    chance = random.Random(7)
    for at in chance.sample(range(len(data)), 40):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        assert not intact(verify(bytes(changed))), at


async def test_receipts_of_checked_tasks_hold_and_name_their_witnesses(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 3) as (desk, _):
        await desk.steward.submit(
            JOB, batch(b"a", b"b", workers=2, verify="audit:probation=1,rate=0.5,quorum=2", units=500)
        )
        await desk.settled(JOB)
        made = receipts(desk)
        found = desk.steward.records.receipts(JOB)
        assert len(found) >= 2
        bodies = [await made.sealed(identifier) for identifier in found]
        for data in bodies:
            found_of = assert_it_holds(data, desk)
            if read_receipt(data).verdict == "accepted":
                assert "computed again by 1 other account with the same result" in found_of.proven
        assert_it_holds_and_no_byte_may_change(bodies[0], desk)
        read = [read_receipt(data) for data in bodies]
        assert {one.work.output.value for one in read if isinstance(one.work, TaskWork)} == {b"a", b"b"}
        assert all(one.settlement is not None and one.voucher is not None for one in read)
        assert "accepted" in {one.verdict for one in read}
        for prefix, many in ((b"", True), (b"\0" * 32, False)):
            with pytest.raises(FallowError) as unclear:
                await made.sealed(prefix)
            assert unclear.value.code == "E2002"
            assert many is not unclear.value.what.startswith("No")
        await desk.kill()
        await desk.start()
        again = await receipts(desk).sealed(found[0])
        assert read_receipt(again).claim == read[0].claim


async def test_a_lane_receipt_is_had_once_its_answer_is_signed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_lane, "CLAIM_EVERY_S", 2.0)
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, lane_job())
        async with AsyncLane(desk.link, JOB, receipts=True) as lane:
            answers = await asyncio.gather(*[lane.run(b"%d" % n) for n in range(5)])
            made = receipts(desk)
            with pytest.raises(FallowError) as early:
                await made.sealed(answers[3].receipt)
            assert early.value.code == "E2002"
            assert "signed" in early.value.what
            (lease,) = desk.steward.lanes.legs
            async with asyncio.timeout(20):
                while find_claim(desk.services.log, lease, 4) is None:
                    await asyncio.sleep(0.1)
        data = await made.sealed(answers[3].receipt)
        assert_it_holds_and_no_byte_may_change(data, desk)
        work = read_receipt(data).work
        assert isinstance(work, LaneWork)
        assert (work.params, work.value, work.units) == (b"3", b"3", 1)
        assert set(desk.steward.records.receipts(JOB)) == {answer.receipt for answer in answers}
        log = desk.services.log
        assert isinstance(log, SqliteEventLog)
        log._db.execute("DELETE FROM events WHERE stream LIKE 'lane/%'").close()
        with pytest.raises(FallowError) as lost:
            await made.sealed(answers[3].receipt)
        assert lost.value.code == "E2002"


async def test_a_claim_that_the_brain_has_not_heard_of_is_no_receipt_yet(tmp_path: Path) -> None:
    """It is on disk before it is decided on; a receipt of that moment called the answer final and showed no voucher."""
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, lane_job())
        lanes, heard = desk.steward.lanes, asyncio.Event()
        tell = lanes._tell

        async def late(event: t.StewardEvent) -> None:
            if isinstance(event, t.PeerClaimedBatch):
                await heard.wait()
            await tell(event)

        lanes._tell = late
        async with AsyncLane(desk.link, JOB, receipts=True) as lane:
            answer = await lane.run(b"1")
            (lease,) = lanes.legs
            while find_claim(desk.services.log, lease, 1) is None:
                await asyncio.sleep(0.05)
            with pytest.raises(FallowError) as early:
                await receipts(desk).sealed(answer.receipt)
            assert early.value.code == "E2002"
            heard.set()
            while True:
                try:
                    data = await receipts(desk).sealed(answer.receipt)
                    break
                except FallowError:
                    await asyncio.sleep(0.05)
        assert_it_holds_and_no_byte_may_change(data, desk)


async def test_what_was_dropped_unchecked_is_voided_and_says_so(tmp_path: Path) -> None:
    """Its receipt called it cleared once, and showed no voucher: it did not hold."""
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, lane_job(verify="audit:probation=1,rate=1.0,quorum=2"))
        async with AsyncLane(desk.link, JOB, receipts=True) as lane:
            answer = await lane.run(b"1")
            while True:
                with contextlib.suppress(FallowError):
                    data = await receipts(desk).sealed(answer.receipt)
                    break
                await asyncio.sleep(0.05)
            assert read_receipt(data).verdict == "provisional"
        await desk.steward.cancel(JOB)
        await desk.settled(JOB)
        data = await receipts(desk).sealed(answer.receipt)
        made = read_receipt(data)
        assert (made.verdict, made.voucher, made.units_final) == ("voided", None, 0)
        assert_it_holds_and_no_byte_may_change(data, desk)


async def test_an_answer_that_was_checked_shows_who_gave_the_same(tmp_path: Path) -> None:
    """It said "cleared" once, as if nobody had looked."""
    async with asyncio.timeout(60), office(tmp_path, 3) as (desk, _):
        await desk.steward.submit(JOB, lane_job(verify="audit:probation=1,rate=1.0,quorum=2"))
        async with AsyncLane(desk.link, JOB, receipts=True) as lane:
            while len([leg for leg in desk.steward.lanes.legs.values() if leg.ready]) < 3:
                await asyncio.sleep(0.05)
            answers = [await lane.run(b"%d" % n) for n in range(4)]
            read, found = list[Receipt](), list[bytes]()
            while "accepted" not in {one.verdict for one in read}:  # once those who checked have signed for it, too
                found.clear()
                for answer in answers:
                    with contextlib.suppress(FallowError):
                        found.append(await receipts(desk).sealed(answer.receipt))
                read = [read_receipt(data) for data in found]
                await asyncio.sleep(0.1)
        for data, one in zip(found, read, strict=True):
            proof = assert_it_holds(data, desk)
            if one.verdict == "accepted":
                assert one.evidence[0].number
                assert "computed again by 1 other account with the same result" in proof.proven
