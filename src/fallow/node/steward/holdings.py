"""What a receipt's work was made from, laid out as files for its owner, who means to do some of it again: from the
node's own store, else from the providers of the job, which keep what they committed to while they have room.

Defends against: an owner's program that asks for blobs which are nothing to it (a receipt of the owner's own must name
them); a provider that sends something else (every piece is checked against the id) or more than was claimed. Does not
defend against a provider that has thrown its states away: then they are missing, and that is said."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fallow.errors import fail
from fallow.node.directory import find_offers
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.shelf import Shelf
from fallow.node.steward.role import Steward
from fallow.rules.steward.shape import LaneTerms
from fallow.rules.steward.shapes.registry import shape_of
from fallow.wire import local
from fallow.wire.codec import decode
from fallow.wire.documents import Lease
from fallow.wire.messages import NodeAddress
from fallow.wire.receipt_checks import intact, verify
from fallow.wire.receipts import LaneWork, Receipt, read_receipt, receipt_id

MAX_SOURCES = 64


def serve_holdings(router: Router, services: Services, steward: Steward) -> None:
    """Answer LayOut."""
    holdings = Holdings(services, steward)

    @router.on(local.LayOut)
    async def _(_caller: Caller, request: local.LayOut) -> local.LaidOut:
        return await holdings.lay_out(request)


class Holdings:
    """Finds and lays out the parts of receipts."""

    def __init__(self, services: Services, steward: Steward) -> None:
        self._s, self._steward, self._shelf = services, steward, Shelf(services)

    async def lay_out(self, request: local.LayOut) -> local.LaidOut:
        """Raises as LayOut says, and what the store and the disk raise."""
        receipt = await asyncio.to_thread(self._own, request.receipt)
        served = self._served(receipt)
        parts = request.parts or served.inputs
        known = _named(receipt)
        if request.parts and any(part.blob not in known for part in parts):
            raise fail("E2002", "The receipt names no such blob.")
        sources = await self._sources(receipt)
        owner, left_bytes, paths = f"replay/{receipt_id(request.receipt).hex()}", request.limit_bytes, list[str]()
        try:
            for part in parts:
                found, size_bytes = await self._shelf.lay(part, Path(request.path), sources, left_bytes, owner)
                left_bytes -= size_bytes
                paths.append(found)
        finally:
            await asyncio.to_thread(self._s.blobs.unpin_all, owner)
        return local.LaidOut(parts, tuple(paths), served.context_tokens)

    def _own(self, data: bytes) -> Receipt:
        checks = verify(data)
        if not intact(checks):
            bad = next(check for check in checks if not check.ok)
            raise fail("E1501", f"The receipt does not verify: {bad.name}: {bad.detail}.")
        receipt = read_receipt(data)
        if decode(Lease, receipt.lease.body).requester != self._s.identity.account:
            raise fail("E2002", "The receipt belongs to another account.")
        return receipt

    def _served(self, receipt: Receipt) -> LaneTerms:
        """What was loaded to answer on the lane that a receipt is about."""
        job = self._steward.state.jobs.get(receipt.job)
        if job is None or not isinstance(receipt.work, LaneWork):
            return LaneTerms()
        return shape_of(job.spec.work).lane(job.spec.work)

    async def _sources(self, receipt: Receipt) -> tuple[NodeAddress, ...]:
        """Where its provider is now, and where the job's providers were; the one that signed first."""
        lease = decode(Lease, receipt.lease.body)
        offers = await find_offers(self._s.rpc, self._s.directories, lease.kind, self._s.clock.now_ms())
        now = {offer.address.node: offer.address for offer in offers}
        job = self._steward.state.jobs.get(receipt.job)
        then = {seat.node: seat.peer for seat in job.seats} if job is not None else {}
        mine = {node: now.get(node, address) for node, address in then.items()}
        if (provider := now.get(lease.provider_node)) is not None:
            mine[lease.provider_node] = provider
        mine.pop(self._s.identity.node, None)
        nodes = sorted(mine, key=lambda node: (node != lease.provider_node, node))
        return tuple(mine[node] for node in nodes[:MAX_SOURCES])


def _named(receipt: Receipt) -> set[bytes]:
    """The blobs that the receipt's work names."""
    work = receipt.work
    if isinstance(work, LaneWork):
        return {part.blob for part in work.checked_as.inputs} if work.checked_as is not None else set()
    return {part.blob for part in (*work.task.inputs, *work.output.parts)}
