"""What a receipt's work was made from, laid out as files for its owner, who means to do some of it again: from the
node's own store, else from the providers of the job, which keep what they committed to while they have room.

Defends against: an owner's program that asks for blobs which are nothing to it (a receipt of the owner's own must name
them); a provider that sends something else (every piece is checked against the id) or more than was claimed. Does not
defend against a provider that has thrown its states away: then they are missing, and that is said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from fallow.errors import FallowError, fail
from fallow.kinds.chain import is_state
from fallow.node.directory import find_offers
from fallow.node.folders import materialize
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.steward.role import Steward
from fallow.rules.steward.shape import LaneTerms
from fallow.rules.steward.shapes.registry import shape_of
from fallow.units import BlobId
from fallow.wire import local
from fallow.wire.codec import decode
from fallow.wire.documents import Lease
from fallow.wire.messages import NodeAddress
from fallow.wire.receipt_checks import intact, verify
from fallow.wire.receipts import LaneWork, Receipt, read_receipt, receipt_id
from fallow.wire.tasks import Part
from fallow.wire.trees import MAX_TREE_BYTES, is_tree

log = structlog.get_logger()

FETCH_S = 1_800.0
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
        self._s, self._steward = services, steward

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
                found, size_bytes = await self._lay(part, Path(request.path), sources, left_bytes, owner)
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

    async def _lay(
        self, part: Part, folder: Path, sources: tuple[NodeAddress, ...], left_bytes: int, owner: str
    ) -> tuple[str, int]:
        """-> where the part lies, "" when nobody has it, and its size."""
        inner = folder / part.blob.hex()
        await asyncio.to_thread(inner.mkdir, parents=True, exist_ok=True)
        blob, blobs = BlobId(part.blob), self._s.blobs
        for _ in range(2):
            was_here = blobs.has(blob)
            try:
                size_bytes = await self._bring(part, sources, left_bytes, owner)
                return str(await asyncio.to_thread(materialize, blobs, part.name, blob, inner)), size_bytes
            except FallowError as error:
                if error.code != "E1602":
                    raise
                log.info("not at hand", blob=blob.hex()[:12], what=error.what, cause=error.cause)
                if not was_here:
                    break
                # what was here, or a file of it, was damaged on this disk and has been dropped: others may have it
        return "", 0

    async def _bring(self, part: Part, sources: tuple[NodeAddress, ...], left_bytes: int, owner: str) -> int:
        """Make sure that a blob or a whole tree is in the store -> its size. Errors as for `Fetcher.fetch`."""
        blob, blobs, fetcher = BlobId(part.blob), self._s.blobs, self._s.fetcher
        # a state is no larger than its claim says; of trees, tasks do not give the size
        limit = min(left_bytes, part.size_bytes) if is_state(part.name) else left_bytes
        size_bytes = await fetcher.fetch(blob, sources, limit, owner=owner, timeout_s=FETCH_S)
        if size_bytes <= MAX_TREE_BYTES and is_tree(await asyncio.to_thread(blobs.read, blob, 0, size_bytes)):
            size_bytes += await fetcher.fetch_tree(blob, sources, limit, owner=owner, timeout_s=FETCH_S)
        return size_bytes


def _named(receipt: Receipt) -> set[bytes]:
    """The blobs that the receipt's work names."""
    work = receipt.work
    if isinstance(work, LaneWork):
        return {part.blob for part in work.checked_as.inputs} if work.checked_as is not None else set()
    return {part.blob for part in (*work.task.inputs, *work.output.parts)}
