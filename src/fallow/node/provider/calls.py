"""What a provider is asked by requesters, and how the machine's replies travel.

Everything signed is checked here, before the machine hears of it: who signed, for which bank, and that the calling node
holds a certificate of the account it speaks for. Whether that account may do what it asks is the machine's decision.

Defends against: quotes for nothing. Keys are free and a quote sets a part of the machine aside, so it is only given to
an account that has money at the bank.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from fallow.errors import FallowError, fail
from fallow.kinds.registry import KINDS
from fallow.node.provider.lanes import ProviderLanes
from fallow.node.provider.work import LeaseWork
from fallow.node.router import Caller, Router
from fallow.rules.provider import events as t
from fallow.rules.provider.state import LeaseEntry
from fallow.rules.steward.checks.registry import PolicyError, parse
from fallow.wire.certificates import check_certificate
from fallow.wire.claims import task_id
from fallow.wire.documents import Document, Lease, Order, Signed, Voucher
from fallow.wire.eip712 import recover
from fallow.wire.messages import (
    AssignTask,
    CancelTask,
    CloseLease,
    Declined,
    GetLaneLeaves,
    LaneLeaves,
    LaneReady,
    LeaseSigned,
    Message,
    Ok,
    OpenLane,
    PayVoucher,
    PrefetchBlobs,
    Quoted,
    RequestQuote,
    Shortfall,
    SignLease,
    WatchLease,
)
from fallow.wire.tasks import TaskSpec

if TYPE_CHECKING:
    from fallow.node.provider.role import Provider

D = TypeVar("D", bound=Document)

OPEN_WAIT_S = 10.0
CLOSE_WAIT_S = 12.0
FUNDED_S, FUNDED_GOOD_MS, MAX_KNOWN = 2.0, 60_000, 4096
"""How long the bank has to say whether an account has money, and how long that is good."""


def serve_provider(router: Router, provider: Provider) -> None:
    """Answer everything that requesters ask."""
    calls = ProviderHandlers(provider)
    router.on(RequestQuote)(calls.quote)
    router.on(SignLease)(calls.sign)
    router.on(AssignTask)(calls.assign)
    router.on(CancelTask)(calls.cancel)
    router.on(PrefetchBlobs)(calls.prefetch)
    router.on(PayVoucher)(calls.pay)
    router.on(CloseLease)(calls.close)
    router.on(GetLaneLeaves)(calls.leaves)
    router.stream(WatchLease)(calls.watch)
    router.stream(OpenLane)(calls.lane)


class ProviderHandlers:
    """The handlers."""

    def __init__(self, provider: Provider) -> None:
        self._p, self._s = provider, provider.services
        self._lanes = ProviderLanes()
        self._known: dict[bytes, int] = {}

    async def quote(self, caller: Caller, request: RequestQuote) -> Message:
        """-> Quoted or Declined."""
        order, signer = self._open(request.order, Order)
        certificate = check_certificate(request.certificate, self._now(), caller.node)
        if certificate.account != signer:
            raise fail("E1101", "The order is not signed by the account whose certificate came with it.")
        check = parse(order.verify)
        if isinstance(check, PolicyError):
            return Declined((Shortfall("verify", 0, 0, check.what[:200]),))
        if not await self._funded(signer):
            return Declined((Shortfall("balance_ucr", 1, 0, "the account has no money at this bank"),))
        return await self._reply(t.PeerOrdered(self._now(), caller.node, signer, order))

    async def _funded(self, account: bytes) -> bool:
        """Whether there is any money that could pay for work; a bank that does not say counts as yes."""
        now_ms = self._now()
        if self._known.get(account, 0) > now_ms:
            return True
        try:
            async with asyncio.timeout(FUNDED_S):
                balance = await self._s.settlement().balance(account)
        except (FallowError, TimeoutError):
            return True
        if not balance.available_ucr:
            return False
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[account] = now_ms + FUNDED_GOOD_MS
        return True

    async def sign(self, caller: Caller, request: SignLease) -> Message:
        """-> LeaseSigned or Declined."""
        lease, signer = self._open(request.lease, Lease)
        return await self._reply(t.PeerProposedLease(self._now(), caller.node, signer, lease, request.lease))

    async def assign(self, caller: Caller, request: AssignTask) -> Message:
        """-> Ok, when the task is on disk. Refused here, not by the machine, whose log must mean tomorrow what it meant
        today: what a kind's parameters come to may change."""
        _refuse_cheap(request.task)
        task = task_id(request.task)
        event = t.PeerAssigned(self._now(), caller.node, request.lease, task, request.task, request.sources)
        return await self._reply(event)

    async def cancel(self, caller: Caller, request: CancelTask) -> Message:
        """-> Ok."""
        return await self._reply(t.PeerCancelled(self._now(), caller.node, request.lease, request.task))

    async def prefetch(self, caller: Caller, request: PrefetchBlobs) -> Message:
        """-> Ok, whatever becomes of it."""
        self._lease(caller, request.lease)
        if (work := self._p.work(request.lease)) is not None:
            work.prefetch(request.parts, request.sources)
        return Ok()

    async def pay(self, caller: Caller, request: PayVoucher) -> Message:
        """-> Ok, when the voucher is on disk."""
        voucher, signer = self._open(request.voucher, Voucher)
        event = t.PeerPaid(
            self._now(), caller.node, signer, voucher.lease, voucher.cumulative_ucr, request.voucher
        )  # fmt: skip
        return await self._reply(event)

    async def close(self, caller: Caller, request: CloseLease) -> Message:
        """-> Ok, when the escrow is closed. Raises UnavailableError E1802 when the bank does not answer in time."""
        reply = await self._reply(t.PeerClosed(self._now(), caller.node, request.lease))
        await self._until(request.lease, lambda phase: phase == "closed", CLOSE_WAIT_S, "The escrow is not closed yet.")
        return reply

    async def watch(
        self, caller: Caller, request: WatchLease, inputs: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        """Events, for as long as the caller likes."""
        self._lease(caller, request.lease)
        async with aclosing(self._p.feeds.follow(request.lease, request.after_sequence)) as events:
            async for event in events:
                yield event

    async def leaves(self, caller: Caller, request: GetLaneLeaves) -> Message:
        """-> LaneLeaves."""
        self._lease(caller, request.lease)
        return LaneLeaves(self._lanes.leaves(request.lease, request.first))

    # lanes ----------------------------------------------------------------------------------------------------------

    async def lane(self, caller: Caller, request: OpenLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """One LaneReady, then answers. A lane that is open under the lease ends."""
        work = await self._work(self._lease(caller, request.lease), request.lease)
        lane, ready = await self._lanes.open(request, work, self._p)
        tasks = (
            self._p.spawn(lane.read(inputs), "lane reader"),
            self._p.spawn(lane.claim_regularly(), "lane claims"),
        )
        try:
            yield LaneReady(ready.load_ms, ready.context_tokens)
            async with aclosing(lane.answers()) as answers:
                async for answer in answers:
                    yield answer
        finally:
            for task in tasks:
                task.cancel()
            lane.close()

    async def _work(self, entry: LeaseEntry, lease: bytes) -> LeaseWork:
        if entry.phase == "signed":
            self._p.start([t.CheckEscrow(lease)])
            await self._until(lease, lambda phase: phase != "signed", OPEN_WAIT_S, "The escrow is not open yet.")
        work = self._p.work(lease)
        if work is None:
            raise fail("E1206", "No more work is done under this lease.")
        return work

    # both -----------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self._s.clock.now_ms()

    def _open(self, signed: Signed, kind: type[D]) -> tuple[D, bytes]:
        """-> the document and who signed it. Raises PeerFault for anything else, or for another bank."""
        document, signer = recover(signed, self._s.bank_account)
        if not isinstance(document, kind):
            raise fail("E1102", f"a {type(document).__name__} where a {kind.__name__} was expected")
        return document, signer

    def _lease(self, caller: Caller, lease: bytes) -> LeaseEntry:
        entry = self._p.state.leases.get(lease)
        if entry is None or entry.document.requester_node != caller.node:
            raise fail("E1204", "This provider has no such lease of yours.")
        return entry

    async def _until(self, lease: bytes, holds: Callable[[str], bool], wait_s: float, late: str) -> None:
        """Wait for a phase of the lease; a lease that is forgotten is in phase "closed"."""
        try:
            async with asyncio.timeout(wait_s):
                while not holds(entry.phase if (entry := self._p.state.leases.get(lease)) else "closed"):
                    await self._p.wait_change()
        except TimeoutError:
            raise fail("E1802", late) from None

    async def _reply(self, event: t.ProviderEvent) -> Message:
        """Let the machine take the event and say its reply in the words of the wire."""
        effects = await self._p.tell(event)
        reply = next(effect for effect in effects if isinstance(effect, t.Replies))
        match reply:
            case t.ReplyQuote(quote):
                return Quoted(self._s.identity.sign(quote, self._s.bank_account))
            case t.CountersignLease(lease):
                return LeaseSigned(self._s.identity.sign(lease, self._s.bank_account))
            case t.ReplyDeclined(rows):
                return Declined(rows)
            case t.ReplyFailure(code, what):
                raise fail(code, what[0].upper() + what[1:] + ".")
            case t.ReplyOk():
                return Ok()


def _refuse_cheap(task: TaskSpec) -> None:
    """Raises RejectedError E1205 for a task that is metered below what it is. What are no parameters of its kind, its
    worker refuses."""
    kind = KINDS.get(task.kind)
    try:
        units = kind.units(task.params) if kind is not None else 0
    except FallowError:
        return
    if units > task.units:
        raise fail("E1205", f"The task is {units} units of {task.kind}, and is metered at {task.units}.")
