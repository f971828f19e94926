"""Following leases of providers that say other things than they signed, or go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.provider.provider_net import Pool, open_pool, seeded
from tests.node.steward.steward_net import Rogue, Told, rogue

from fallow.errors import fail
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.steward import watch
from fallow.node.steward.records import Records
from fallow.node.steward.watch import WatchedLease, Watches
from fallow.rules.steward import events as t
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.messages import (
    Claimed,
    LaneClaimed,
    LeaseBody,
    LeaseEvent,
    LeaseLeaving,
    LogLine,
    Message,
    Progress,
    TaskFailed,
    WatchLease,
)
from fallow.wire.tasks import TaskOutput

JOB, LEASE, TASK = b"j" * 32, b"l" * 32, b"t" * 32
OUTPUT = TaskOutput(b"answer", ())
UNITS = 7


class Claims:
    """Stands in for the lanes: notes the claims that get through."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    async def claimed(self, _lease: bytes, sequence: int, _claim: Signed, _hash: bytes, _root: Any, first: int) -> None:
        self.heard.append((sequence, first))


@dataclass
class Stage:
    """Somebody who watches, and a provider that says what is put into `bodies`; None breaks the stream."""

    pool: Pool
    us: Services
    rita: Rogue
    told: Told = field(default_factory=Told)
    lanes: Claims = field(default_factory=Claims)
    bodies: asyncio.Queue[LeaseEvent | Message | None] = field(default_factory=asyncio.Queue)
    asked: list[int] = field(default_factory=list)
    refuse: str = ""
    away: bool = False

    def watch(self) -> Watches:
        rita, records = self.rita.services.identity, Records(self.us)

        def facts(_lease: bytes) -> WatchedLease:
            return WatchedLease(JOB, rita.account, rita.node, lambda _task, _output: UNITS, away=self.away)

        async def tell(event: t.StewardEvent) -> None:
            if isinstance(event, t.PeerObserved | t.PeerUnobserved):
                self.away = isinstance(event, t.PeerUnobserved)
            await self.told(event)

        watches = Watches(self.us, records, self.lanes, tell, tell, facts)  # type: ignore[arg-type]
        watches.watch(self.pool.tasks, t.Watch(LEASE, self.rita.services.rpc.address(), 0))
        self.pool.running.append(watches._tasks[LEASE])
        return watches

    def say(self, sequence: int, body: LeaseBody) -> None:
        self.bodies.put_nowait(LeaseEvent(sequence, 0, body))

    def sign(self, root: ClaimRoot) -> Signed:
        return self.rita.services.identity.sign(root, self.us.bank_account)


@asynccontextmanager
async def stage(folder: Path) -> AsyncGenerator[Stage]:
    async with open_pool(folder) as pool:
        s = Stage(pool, await pool.services("sam", Router()), await rogue(pool))

        @s.rita.router.stream(WatchLease)
        async def _(_caller: Caller, request: WatchLease, _inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
            s.asked.append(request.after_sequence)
            if s.refuse:
                raise fail(s.refuse, "no such lease")
            while (body := await s.bodies.get()) is not None:
                yield body

        yield s


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY_S", 0.01)


def root(**changes: Any) -> ClaimRoot:
    tree = MerkleTree([task_leaf(TASK, output_hash(OUTPUT), UNITS)])
    return msgspec.structs.replace(ClaimRoot(LEASE, 1, tree.root, 1, UNITS), **changes)


async def test_a_claim_over_its_output_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, Claimed(TASK, OUTPUT, s.sign(root()), {}, ()))
        event = await s.told.wait(t.PeerClaimed)
        assert (event.lease, event.sequence, event.task, event.output) == (LEASE, 1, TASK, OUTPUT)
        assert event.digest == output_hash(OUTPUT)
        s.say(2, TaskFailed(TASK, "E1704", "it died", True))
        s.say(3, LeaseLeaving("the owner is back"))
        await s.told.wait(t.PeerLeaving)
        assert (await s.told.wait(t.PeerFailed)).retryable


WRONG: dict[str, ClaimRoot] = {
    "a root over something else": root(root=b"r" * 32),
    "more units than the task costs": root(units=UNITS + 1),
    "fewer units than the task costs": root(units=1),
    "more leaves": root(count=2),
    "another lease": root(lease=b"m" * 32),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_claim_that_does_not_commit_to_its_output_is_a_failure(tmp_path: Path, name: str) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, Claimed(TASK, OUTPUT, s.sign(WRONG[name]), {}, ()))
        event = await s.told.wait(t.PeerFailed)
        assert (event.task, event.code, event.retryable, event.sequence) == (TASK, "E1101", True, 1)
        assert not any(isinstance(event, t.PeerClaimed) for event in s.told.events)


async def test_a_claim_signed_by_somebody_else_or_nobody_is_a_failure(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, Claimed(TASK, OUTPUT, seeded("mallory").sign(root(), s.us.bank_account), {}, ()))
        s.say(2, Claimed(TASK, OUTPUT, Signed(b"\xc1", bytes(65)), {}, ()))
        assert (await s.told.wait(t.PeerFailed)).code == "E1101"
        assert (await s.told.wait(t.PeerFailed, 2)).sequence == 2


async def test_lane_claims_go_to_the_lanes_when_they_are_the_providers_own(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, LaneClaimed(s.sign(root(count=5)), 11))
        s.say(2, LaneClaimed(s.sign(root(lease=b"m" * 32)), 16))
        await s.told.wait(t.PeerUnobserved)
        assert s.lanes.heard == [(1, 11)]


async def test_a_broken_stream_goes_on_where_it_stopped_and_repeats_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, TaskFailed(TASK, "E1704", "first", True))
        await s.told.wait(t.PeerFailed)
        s.bodies.put_nowait(None)
        s.say(1, TaskFailed(TASK, "E1704", "first", True))  # said again, by one that does not keep to the rules
        s.say(2, TaskFailed(TASK, "E1704", "second", True))
        assert (await s.told.wait(t.PeerFailed, 2)).what == "second"
        assert s.asked == [0, 1]
        kinds = [type(event) for event in s.told.events]
        assert kinds == [t.PeerFailed, t.PeerUnobserved, t.PeerObserved, t.PeerFailed]


async def test_whoever_changed_the_brains_mind_is_contradicted(tmp_path: Path) -> None:
    """A quote of the same node, or the stream of another of its leases, may have said otherwise meanwhile."""
    async with stage(tmp_path) as s:
        s.watch()
        s.say(1, TaskFailed(TASK, "E1704", "first", True))
        await s.told.wait(t.PeerFailed)
        s.away = True
        s.say(2, TaskFailed(TASK, "E1704", "second", True))
        await s.told.wait(t.PeerObserved)
        s.refuse = "E1801"
        s.bodies.put_nowait(None)
        await s.told.wait(t.PeerUnobserved)
        s.away = False
        await s.told.wait(t.PeerUnobserved, 2)


async def test_something_else_than_an_event_breaks_the_stream_only(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.watch()
        s.bodies.put_nowait(LeaseLeaving("not in an event"))
        await s.told.wait(t.PeerUnobserved)
        async with asyncio.timeout(10):
            while len(s.asked) < 2:
                await asyncio.sleep(0.01)
        s.say(1, TaskFailed(TASK, "E1704", "first", True))
        await s.told.wait(t.PeerFailed)
        assert len(s.asked) == 2


async def test_a_provider_that_knows_nothing_of_the_lease_is_leaving(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.refuse = "E1204"
        s.watch()
        assert (await s.told.wait(t.PeerLeaving)).sequence == 0


async def test_passing_notes_are_shown_and_a_stopped_watch_ends(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        watches = s.watch()
        seen: list[str] = []

        async def look() -> None:
            async for note in watches._records.watch(JOB, 0):
                seen.append(note.text)
                if len(seen) == 2:
                    return

        looking = s.pool.tasks.create_task(look())
        s.say(0, Progress(TASK, 1, 2, "step 1"))
        s.say(0, LogLine(TASK, "hello"))
        await asyncio.wait_for(looking, 10)
        assert seen == ["step 1", "hello"]
        task = watches._tasks[LEASE]
        watches.stop(LEASE)
        await asyncio.wait({task})
        assert task.cancelled()


async def test_who_takes_the_call_and_says_nothing_on_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers quotes, so that it holds a lease, and would hold it to its end."""
    monkeypatch.setattr(watch, "FIRST_S", 0.05)
    async with stage(tmp_path) as s:
        s.watch()
        assert (await s.told.wait(t.PeerUnobserved)).node == s.rita.services.identity.node
