"""The steward's process: jobs from submission to money, and over its death between any two steps."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import msgspec
import pytest
from tests.node.steward.steward_net import Desk, batch, lane_job, office

from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError, first_of
from fallow.node.steward import records as records_module
from fallow.node.steward import role as module
from fallow.node.steward.receipts import Receipts
from fallow.node.steward.role import STREAM, Steward
from fallow.ports import Patience
from fallow.rules.steward.events import Timing
from fallow.rules.steward.machine import outstanding
from fallow.sdk.lanes import AsyncLane
from fallow.units import cost_ucr
from fallow.wire.ledger import Books
from fallow.wire.local import JobView
from fallow.wire.receipts import read_receipt
from fallow.wire.tasks import TaskOutput

JOB = b"j" * 32


async def books(desk: Desk) -> Books:
    s = desk.services
    found = await s.settlement(Patience()).books()
    assert isinstance(found, Books)
    return found


async def test_a_batch_from_submission_to_money(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, batch(b"one", b"two", b"three", units=500))
        await desk.steward.submit(JOB, batch(b"another"))  # twice is once
        view = await desk.settled(JOB)
        assert (view.phase, view.done, view.total) == ("done", 3, 3)
        (lease,) = view.leases
        assert lease.paid_ucr == 1_500 * lease.price_ucr // 1_000
        ended = desk.steward.records.outcome(JOB)
        assert ended is not None
        assert ended.outputs == tuple(TaskOutput(value, ()) for value in (b"one", b"two", b"three"))
        assert len(desk.steward.records.receipts(JOB)) == 3
        found = await books(desk)
        assert (found.minted_ucr, found.open_escrows) == (found.sum_ucr, 0)


async def test_checked_work_frees_the_bonds_that_its_audits_held(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path, 3) as (desk, sellers):
        await desk.steward.submit(JOB, batch(b"a", b"b", workers=2, verify="audit:probation=1,rate=0.5,quorum=2"))
        view = await desk.settled(JOB)
        assert view.phase == "done"
        s = desk.services
        bank = s.settlement(Patience())
        for seller in sellers:
            balance = await bank.balance(seller.services.identity.account)
            assert balance.bonded_ucr == 0
            assert balance.staked_ucr == seller.provider.state.stake_ucr  # none of it on hold


@pytest.mark.parametrize("compact_bytes", [0, module.COMPACT_BYTES])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 9])
async def test_a_death_between_any_two_steps_changes_nothing(
    tmp_path: Path, steps: int, compact_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies right after its `steps`th write, before what it decided is recorded or done; with a snapshot
    after every write, and without any."""
    monkeypatch.setattr(module, "COMPACT_BYTES", compact_bytes)
    died = asyncio.Event()
    real = Steward._take
    left = [steps]

    async def take(self: Steward, events: list[object]) -> None:
        if left[0] == 0:
            died.set()
            await asyncio.sleep(3600)
        left[0] -= 1
        if left[0] == 0:
            self._services.log.append(STREAM, [module.encode(event) for event in events])  # type: ignore[arg-type]
            died.set()
            await asyncio.sleep(3600)
        await real(self, events)  # type: ignore[arg-type]

    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        monkeypatch.setattr(Steward, "_take", take)
        submitting = desk.pool.tasks.create_task(desk.steward.submit(JOB, batch(b"one", b"two")))
        async with asyncio.timeout(20):
            while not died.is_set() and not desk.steward.records.outcome(JOB):
                await asyncio.sleep(0.02)
        monkeypatch.setattr(Steward, "_take", real)
        submitting.cancel()
        await desk.kill()
        await desk.start()
        await desk.steward.submit(JOB, batch(b"one", b"two"))
        view = await desk.settled(JOB)
        assert (view.phase, view.done) == ("done", 2)
        assert sum(lease.paid_ucr for lease in view.leases) == 2
        found = await books(desk)
        assert (found.minted_ucr, found.open_escrows) == (found.sum_ucr, 0)


async def test_replay_gives_the_state_and_the_records_again(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, batch(b"one", b"two"))
        await desk.settled(JOB)
        await desk.steward.submit(b"k" * 32, batch(*[b"%d" % n for n in range(50)]))
        again = Steward(desk.services, Timing())
        before = desk.steward.records.notes(JOB, 0)
        again.replay()
        assert again.records.notes(JOB, 0) == before
        assert msgspec.msgpack.encode(again.state.jobs[JOB]) == msgspec.msgpack.encode(desk.steward.state.jobs[JOB])
        assert {type(effect).__name__ for effect in outstanding(again.state)} <= {"FindOffers", "AskQuote"}


async def test_a_death_at_any_write_of_a_snapshot_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies before, or right after, its `at`th cut, for every cut of a job's life; each time the job is
    done once, paid once and remembered."""
    monkeypatch.setattr(module, "COMPACT_BYTES", 0)
    real, deaths, number = Steward._compact, 0, 0
    for at, early in ((at, early) for at in (1, 2, 4, 7) for early in (True, False)):
        died, left, number = asyncio.Event(), [at], number + 1

        async def compact(
            self: Steward, left: list[int] = left, died: asyncio.Event = died, early: bool = early
        ) -> None:
            left[0] -= 1
            if left[0] == 0 and not early:
                await real(self)
            if left[0] <= 0:
                died.set()
                await asyncio.sleep(3600)
            await real(self)

        folder = tmp_path / str(number)
        folder.mkdir()
        async with asyncio.timeout(60), office(folder) as (desk, _):
            monkeypatch.setattr(Steward, "_compact", compact)
            submitting = desk.pool.tasks.create_task(desk.steward.submit(JOB, batch(b"one", b"two")))
            async with asyncio.timeout(20):
                while not died.is_set() and not desk.steward.records.outcome(JOB):
                    await asyncio.sleep(0.02)
            deaths += died.is_set()
            monkeypatch.setattr(Steward, "_compact", real)
            submitting.cancel()
            await desk.kill()
            await desk.start()
            await desk.steward.submit(JOB, batch(b"one", b"two"))
            view = await desk.settled(JOB)
            assert (view.phase, view.done) == ("done", 2)
            assert sum(lease.paid_ucr for lease in view.leases) == 2
    assert deaths >= 6


async def test_jobs_that_are_over_leave_and_can_still_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 0)
    monkeypatch.setattr(module, "REST_MS", -1_000)
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, batch(b"one", b"two"))
        seen = await desk.settled(JOB)
        notes, receipts = desk.steward.records.notes(JOB, 0), desk.steward.records.receipts(JOB)
        for other in (bytes([number]) * 32 for number in range(20)):  # until the log is longer than a snapshot
            await desk.steward.submit(other, batch(b"other"))
            await desk.settled(other)
            if JOB not in desk.steward.state.jobs:
                break
        for _ in range(2):
            assert JOB not in desk.steward.state.jobs
            assert desk.steward.jobs()[0] == JOB
            assert desk.steward.view(JOB) == seen
            assert desk.steward.records.notes(JOB, 0) == notes
            assert desk.steward.records.receipts(JOB) == receipts
            sealed = await Receipts(desk.services, desk.steward.records, desk.steward.state).sealed(receipts[0])
            assert read_receipt(sealed).job == JOB
            with pytest.raises(FallowError) as gone:
                desk.steward.spec(JOB)
            assert gone.value.code == "E2002"
            await desk.steward.submit(JOB, batch(b"one", b"two"))  # an id is one job, however long ago
            assert JOB not in desk.steward.state.jobs
            await desk.kill()
            await desk.start()
        found = await books(desk)
        assert (found.minted_ucr, found.open_escrows) == (found.sum_ucr, 0)


async def test_of_jobs_that_are_over_a_bounded_number_is_kept_and_the_log_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 0)
    monkeypatch.setattr(module, "REST_MS", -1_000)
    monkeypatch.setattr(records_module, "KEPT_JOBS", 2)
    ids = [bytes([number]) * 32 for number in range(1, 6)]
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        for job in ids:
            await desk.steward.submit(job, batch(b"one", b"two"))
            await desk.settled(job)
        await desk.kill()
        await desk.start()
        assert len(desk.steward.records.retired) <= 2
        assert desk.steward.jobs()[-1] == ids[-1]
        log = desk.services.log
        assert len(log.read(STREAM)) < 40
        assert not log.keys(f"note/{ids[0].hex()}/")
        assert log.keys(f"note/{ids[-1].hex()}/")
        assert desk.steward.records.outcome(ids[0]) is not None
        assert len(desk.steward.records.receipts(ids[0])) == 2


async def test_a_full_disk_ends_the_node_with_its_code(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path, 0) as (desk, _):
        log = SqliteEventLog(tmp_path / "small.db")
        log._db.execute("PRAGMA max_page_count=5").close()  # SQLite says FULL, as it does for a full disk
        steward = Steward(dataclasses.replace(desk.services, log=log), Timing())

        async def flood(ready: asyncio.Event) -> None:
            await ready.wait()
            with pytest.raises(asyncio.CancelledError):  # nobody is told that a job is on disk when it is not
                await steward.submit(JOB, batch(b"x" * 100_000))
            raise asyncio.CancelledError

        ended = ""
        try:
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                ready = asyncio.Event()
                group.create_task(steward.run(ready))
                group.create_task(flood(ready))
        except* FallowError as errors:
            ended = first_of(errors).code
        assert ended == "E1603"
        assert JOB not in steward.state.jobs
        log.close()


async def test_cancelling_pays_what_was_done_and_gives_back_the_rest(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, lane_job())
        await desk.view(JOB, lambda view: any(lease.state == "open" for lease in view.leases))
        await desk.steward.cancel(JOB)
        view = await desk.settled(JOB)
        assert (view.phase, view.spent_ucr, view.locked_ucr) == ("cancelled", 0, 0)
        with pytest.raises(FallowError) as unknown:
            await desk.steward.cancel(b"x" * 32)
        assert unknown.value.code == "E2002"


async def test_a_lane_is_there_again_after_a_restart_and_pays_once(tmp_path: Path) -> None:
    async with asyncio.timeout(30), office(tmp_path) as (desk, sellers):
        await desk.steward.submit(JOB, lane_job())
        async with AsyncLane(desk.link, JOB) as lane:
            await lane.map([b"%d" % n for n in range(100)])
        await desk.view(JOB, lambda view: view.leases[0].units_final == 100)
        await desk.kill()
        await desk.start()
        async with AsyncLane(desk.link, JOB, receipts=True) as lane:
            await lane.map([b"%d" % n for n in range(50)])
        await desk.view(JOB, lambda view: view.leases[0].units_final == 150)
        await desk.steward.cancel(JOB)
        view = await desk.settled(JOB)
        assert [lease.paid_ucr for lease in view.leases] == [150 * view.leases[0].price_ucr // 1_000]
        await desk.kill()
        await desk.start()
        with pytest.raises(FallowError) as ended:
            async with AsyncLane(desk.link, JOB) as lane:
                await lane.run(b"too late")
        assert ended.value.code == "E1402"
        assert len(sellers) == 1


async def test_a_lane_that_is_checked_in_full_comes_to_rest(tmp_path: Path) -> None:
    """Checks are answers on lanes like any other, but they are not checked in their turn."""
    async with asyncio.timeout(60), office(tmp_path, sellers=3) as (desk, _):
        await desk.steward.submit(JOB, lane_job(3, verify="audit:probation=0,rate=1,quorum=2"))
        await desk.view(JOB, lambda view: sum(lease.state == "open" for lease in view.leases) == 3)
        async with AsyncLane(desk.link, JOB) as lane:
            await lane.map([b"%d" % n for n in range(4)])

        def rests(view: JobView) -> bool:
            claimed = sum(lease.units_claimed for lease in view.leases)
            return claimed >= 8 and claimed == sum(lease.units_final for lease in view.leases)

        await desk.view(JOB, rests)
        assert sum(len(leg.answered) for leg in desk.steward.lanes.legs.values()) == 8
        await desk.steward.cancel(JOB)
        assert sum(lease.units_final for lease in (await desk.settled(JOB)).leases) == 8


async def test_a_used_up_budget_ends_a_lane_with_a_reason(tmp_path: Path) -> None:
    async with asyncio.timeout(30), office(tmp_path) as (desk, _):
        await desk.steward.submit(JOB, lane_job(budget=60))
        answers: list[bytes] = []
        with pytest.raises(FallowError) as ended:
            async with AsyncLane(desk.link, JOB) as lane:
                for number in range(1_000):
                    answers.append((await lane.run(b"%d" % number)).value)
        assert ended.value.code == "E1401"
        assert 30 <= len(answers) <= 60
        view = await desk.settled(JOB)
        assert view.phase == "failed"
        assert sum(lease.units_final for lease in view.leases) == len(answers)
        assert all(v.paid_ucr == cost_ucr(v.units_final, v.price_ucr) for v in view.leases)
