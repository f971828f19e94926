"""What is kept for people, and how those who watch hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fallow.adapters.event_log import SqliteEventLog
from fallow.node.lanes.journal import lane_receipt_id
from fallow.node.steward import records as records_module
from fallow.node.steward.records import Records, receipt_id
from fallow.rules.steward.events import JobEnded, Note
from fallow.wire.documents import Signed
from fallow.wire.local import JobNote
from fallow.wire.tasks import TaskOutput

JOB = b"j" * 32


class CountingLog(SqliteEventLog):
    """Counts what it writes."""

    flushes = 0

    def put_all(self, cells: Any) -> None:
        self.flushes += 1
        super().put_all(cells)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[CountingLog]:
    made = CountingLog(tmp_path / "log.db")
    yield made
    made.close()


def records(log: SqliteEventLog) -> Records:
    services: Any = SimpleNamespace(log=log)
    return Records(services)


def note(number: int, text: str = "") -> Note:
    return Note(JOB, number, 1000 + number, "phase", text or f"note {number}")


def passing(text: str) -> JobNote:
    return JobNote(0, 0, "log", text)


async def test_records_of_a_batch_are_one_flush_and_writing_them_twice_is_writing_them_once(log: CountingLog) -> None:
    kept = records(log)
    effects = [note(1), note(2), JobEnded(JOB, "", "", (TaskOutput(b"x", ()), None))]
    for _ in range(2):
        kept.keep(effects)
        kept.tell(effects)
    assert log.flushes == 2
    assert [one.number for one in kept.notes(JOB, 0)] == [1, 2]
    assert [one.text for one in records(log).notes(JOB, 1)] == ["note 2"]
    ended = records(log).outcome(JOB)
    assert ended is not None
    assert ended.outputs == (TaskOutput(b"x", ()), None)
    assert records(log).outcome(b"k" * 32) is None


async def test_nothing_to_write_writes_nothing(log: CountingLog) -> None:
    records(log).keep([])
    assert log.flushes == 0


async def test_watching_tells_kept_notes_then_new_ones_and_ends_with_the_job(log: CountingLog) -> None:
    kept = records(log)
    kept.keep([note(1)])
    seen: list[str] = []

    async def look() -> None:
        async for one in kept.watch(JOB, 0):
            seen.append(one.text)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(look())
        await asyncio.sleep(0)
        kept.show(JOB, passing("a log line"))
        while "a log line" not in seen:
            await asyncio.sleep(0)
        for effects in ([note(2)], [note(3), JobEnded(JOB, "", "", ())]):
            kept.keep(effects)
            kept.tell(effects)
    assert seen == ["note 1", "a log line", "note 2", "note 3"]


async def test_a_watcher_that_wakes_between_writing_and_telling_hears_the_last_notes(log: CountingLog) -> None:
    kept = records(log)
    kept.keep([note(1)])
    seen: list[str] = []

    async def look() -> None:
        async for one in kept.watch(JOB, 0):
            seen.append(one.text)

    last = [note(2), JobEnded(JOB, "", "", ())]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        while not seen:
            await asyncio.sleep(0)
        kept.keep(last)  # in a thread, in earnest
        kept.show(JOB, passing("a log line"))
        await looking
    kept.tell(last)
    assert seen == ["note 1", "a log line", "note 2"]
    assert [one.number for one in kept.notes(JOB, 0)] == [1, 2]


async def test_a_slow_watcher_misses_the_oldest_passing_notes_only(
    log: CountingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "MAX_LIVE_NOTES", 4)
    kept = records(log)
    watching = kept.watch(JOB, 0)
    kept.show(JOB, passing("0"))
    assert (await anext(watching)).text == "0"
    for number in range(1, 11):
        kept.show(JOB, passing(str(number)))
    assert [(await anext(watching)).text for _ in range(4)] == ["7", "8", "9", "10"]
    kept.show(JOB, passing("11"))
    assert (await anext(watching)).text == "11"


async def test_papers_come_back_as_they_were(log: CountingLog) -> None:
    kept = records(log)
    signed = Signed(b"body", bytes(65))
    kept.keep_documents({b"o" * 32: signed, b"q" * 32: Signed(b"other", bytes(65))})
    kept.keep_settlement(b"l" * 32, signed)
    again = records(log)
    assert again.document(b"o" * 32) == signed
    assert again.document(b"x" * 32) is None
    assert again.settlement(b"l" * 32) == signed
    assert again.verdict(b"l" * 32) is None
    assert log.flushes == 2


def test_receipts_have_ids_of_their_own() -> None:
    lease = b"l" * 32
    ids = {receipt_id(lease, b"c" * 32), lane_receipt_id(lease, 1), lane_receipt_id(lease, 2)}
    assert len(ids | {lane_receipt_id(b"m" * 32, 1)}) == 4
