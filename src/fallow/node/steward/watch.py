"""Following leases: one resumable stream per lease, from which claims, failures and leavings become events. What a
provider says is checked here against its signature and its own words before the brain hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from fallow.errors import FallowError, PeerFault, UnavailableError, fail
from fallow.node.lanes.audit import Tell
from fallow.node.lanes.lane import Lanes
from fallow.node.services import Services
from fallow.node.steward.records import Records
from fallow.rules.steward import events as t
from fallow.wire import messages
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.local import JobNote
from fallow.wire.tasks import TaskOutput

log = structlog.get_logger()

RETRY_S, RETRY_MOST_S = 0.5, 5.0
FIRST_S = 10.0
"""How soon a provider that takes the call says that it hears us. One that never does is not there for us: else it could
hold a lease to its end by saying nothing."""
GONE = frozenset({"E1204", "E1302"})
"""A provider's answers that mean: this lease is nothing to me."""


class WatchedLease(msgspec.Struct, frozen=True):
    """What following a lease takes: its job, the provider's account and node, and how many units a task of it costs
    with its output (0 for one that was never asked for). `open` while the brain counts on it; `away` while it believes
    that the node cannot be observed."""

    job: bytes
    provider: bytes
    node: bytes
    metered: Callable[[bytes, TaskOutput], int]
    open: bool = True
    away: bool = False


Find = Callable[[bytes], WatchedLease | None]


class Watches:
    """All lease streams of a steward; `find` gives the facts of a lease, None for one that is not known. `settle` tells
    an event and returns once it counts, so that `find` knows of it."""

    def __init__(
        self, services: Services, records: Records, lanes: Lanes, tell: Tell, settle: Tell, find: Find
    ) -> None:
        self._s, self._records, self._lanes, self._tell, self._settle = services, records, lanes, tell, settle
        self._find = find
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._seen: dict[bytes, int] = {}

    def watch(self, group: asyncio.TaskGroup, effect: t.Watch) -> None:
        """Start to follow a lease; one that is followed already goes on where it is."""
        task = self._tasks.get(effect.lease)
        if task is None or task.done():
            self._seen[effect.lease] = max(effect.after_sequence, self._seen.get(effect.lease, 0))
            self._tasks[effect.lease] = group.create_task(self._follow(effect), name="watch lease")

    def stop(self, lease: bytes) -> None:
        """The lease is settled."""
        if (task := self._tasks.pop(lease, None)) is not None:
            task.cancel()

    async def _follow(self, effect: t.Watch) -> None:
        """Until stopped. That the provider is or is not there is told whenever the brain believes otherwise: another
        lease's stream, or a quote, may have changed its mind. A provider that knows nothing of the lease (any more) is
        told as leaving."""
        wait_s = RETRY_S
        while True:
            try:
                request = messages.WatchLease(effect.lease, self._seen[effect.lease])
                async with self._s.rpc.open(effect.peer, request) as stream:
                    async for event in _from_the_first(stream):
                        if not isinstance(event, messages.LeaseEvent):
                            raise fail("E1102", "something else than a lease event")
                        wait_s = RETRY_S
                        await self._seen_there(effect.lease)
                        await self._take(effect.lease, event)
            except UnavailableError as error:
                log.info("lease unobserved", lease=effect.lease.hex()[:12], what=error.what)
            except FallowError as error:
                log.warning("lease stream refused", lease=effect.lease.hex()[:12], what=error.what)
                wait_s = min(2 * wait_s, RETRY_MOST_S)
                if error.code in GONE:
                    await self._tell(t.PeerLeaving(self._s.clock.now_ms(), effect.lease, 0, error.what[:200]))
            facts = self._find(effect.lease)
            if facts is not None and facts.open and not facts.away:
                await self._settle(t.PeerUnobserved(self._s.clock.now_ms(), facts.node))
            await self._s.clock.sleep(wait_s)

    async def _seen_there(self, lease: bytes) -> None:
        facts = self._find(lease)
        if facts is not None and facts.away:
            await self._settle(t.PeerObserved(self._s.clock.now_ms(), facts.node))

    async def _take(self, lease: bytes, event: messages.LeaseEvent) -> None:
        facts = self._find(lease)
        if facts is None or 0 < event.sequence <= self._seen[lease]:
            return
        now_ms, body = self._s.clock.now_ms(), event.body
        match body:
            case messages.Progress(task) if not any(task):
                pass  # the provider says that it heard us; of no task, so of no interest to people
            case messages.Progress(task, done, total, note):
                text = note or f"task {task.hex()[:8]}"
                self._records.show(facts.job, JobNote(0, now_ms, "progress", text, facts.node, done, total))
            case messages.LogLine(_, text):
                self._records.show(facts.job, JobNote(0, now_ms, "log", text, facts.node))
            case messages.Claimed():
                await self._tell(self._claimed(lease, facts, event.sequence, body))
            case messages.TaskFailed(task, code, what, retryable):
                await self._tell(t.PeerFailed(now_ms, lease, event.sequence, task, code, what, retryable))
            case messages.LaneClaimed(claim, first):
                root, claim_hash = self._open_claim(claim, lease, facts)
                await self._lanes.claimed(lease, event.sequence, claim, claim_hash, root, first)
            case messages.LeaseLeaving(reason):
                await self._tell(t.PeerLeaving(now_ms, lease, event.sequence, reason))
        if event.sequence:
            self._seen[lease] = max(self._seen[lease], event.sequence)

    def _open_claim(self, claim: Signed, lease: bytes, facts: WatchedLease) -> tuple[ClaimRoot, bytes]:
        """A peer that signs for another lease, or lets another sign, is caught here."""
        root = open_signed(claim, ClaimRoot, self._s.bank_account, facts.provider)
        if root.lease != lease:
            raise fail("E1101", "a claim under another lease")
        return root, hash_document(root, self._s.bank_account)

    def _claimed(self, lease: bytes, facts: WatchedLease, sequence: int, body: messages.Claimed) -> t.StewardEvent:
        now_ms = self._s.clock.now_ms()
        try:
            root, claim_hash = self._open_claim(body.claim, lease, facts)
            digest = output_hash(body.output)
            units = facts.metered(body.task, body.output)
            tree = MerkleTree([task_leaf(body.task, digest, units)])
            if (root.root, root.count, root.units) != (tree.root, 1, units):
                raise fail("E1101", "a claim that does not commit to what it came with")
        except PeerFault as error:
            # no evidence of work: the same to us as a failed task, and it is tried elsewhere
            return t.PeerFailed(now_ms, lease, sequence, body.task, error.code, error.what, retryable=True)
        return t.PeerClaimed(
            now_ms, lease, sequence, body.task, body.output, digest, body.claim, claim_hash, body.holders
        )


async def _from_the_first(stream: AsyncIterator[messages.Message | bytes]) -> AsyncIterator[messages.Message | bytes]:
    """What comes on a stream. Raises UnavailableError E1802 when nothing has come in `FIRST_S`."""
    try:
        async with asyncio.timeout(FIRST_S):
            first = await anext(stream)
    except StopAsyncIteration:
        return
    except TimeoutError:
        raise fail("E1802", f"Nothing was heard in {FIRST_S:g} s.") from None
    yield first
    async for event in stream:
        yield event
