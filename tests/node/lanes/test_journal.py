"""What a lane leaves on disk, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, GenerateValue
from fallow.kinds.registry import lane_side
from fallow.node.lanes.journal import Answered, Journal, claimed_to, find_claim, keep_claim, read_answers
from fallow.rules.steward.events import PeerClaimedBatch
from fallow.wire.codec import encode
from fallow.wire.documents import Signed

LEASE = b"l" * 32


def record(number: int) -> Answered:
    return Answered(number, b"p", 0, b"v", 1, False)


def journal(log: SqliteEventLog) -> Journal:
    services: Any = SimpleNamespace(log=log)
    return Journal(services, "lane/x")


async def test_answers_are_kept_in_batches_and_all_of_them_at_the_end(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    kept = journal(log)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(kept.run())
        for number in range(100):
            kept.add(record(number))
        kept.end()
        await running
    assert sorted(read_answers(log, "lane/x")) == list(range(100))
    assert len(log.read("lane/x")) == 1
    log.close()


async def test_who_waits_is_told_after_the_write(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    kept = journal(log)
    seen: list[tuple[bytes | None, int]] = []
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(kept.run())
        kept.add(record(1))
        done = asyncio.Event()

        def saved() -> None:
            seen.append((log.get("cell"), len(read_answers(log, "lane/x"))))
            done.set()

        kept.when_saved({"cell": b"x"}, saved)
        await done.wait()
        kept.end()
    assert seen == [(b"x", 1)]
    log.close()


async def test_a_full_disk_is_not_hidden(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    log._db.execute("PRAGMA max_page_count=5").close()
    kept = journal(log)
    kept.add(Answered(1, bytes(100_000), 0, b"", 1, False))
    kept.when_saved({}, lambda: pytest.fail("it was not saved"))
    with pytest.raises(FallowError) as full:
        await kept.run()
    assert full.value.code == "E1603"
    log.close()


def test_a_claim_is_found_by_any_number_that_it_is_over(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    assert (find_claim(log, LEASE, 1), claimed_to(log, LEASE)) == (None, 0)
    claims = [
        PeerClaimedBatch(0, LEASE, n, Signed(b"", bytes(65)), b"c" * 32, first, count, count)
        for n, (first, count) in enumerate([(1, 5), (6, 4), (4096, 1000)], 1)
    ]
    for claim in reversed(claims):
        keep_claim(log, claim)
    found = [find_claim(log, LEASE, number) for number in (0, 1, 5, 6, 9, 10, 4095, 4096, 5095, 5096)]
    assert [claim.first if claim else 0 for claim in found] == [0, 1, 1, 6, 6, 0, 0, 4096, 4096, 0]
    assert claimed_to(log, LEASE) == 5096
    assert find_claim(log, b"m" * 32, 1) is None
    log.close()


def test_an_answer_that_was_cut_short_is_known_as_such() -> None:
    for finish, cancelled in ((CANCELLED, True), ("stop", False)):
        one = Answered(1, b"p", 0, encode(GenerateValue("9 ", finish, 7, 1)), 8, True)
        assert one.cancelled(lane_side("generate")) is cancelled
        assert not one.cancelled(lane_side("echo"))


def test_an_answer_that_was_kept_before_answers_committed_to_logits_can_be_read() -> None:
    old = msgspec.msgpack.encode(["9 ", CANCELLED, 7, 1])
    assert Answered(1, b"p", 0, old, 8, True).cancelled(lane_side("generate"))
