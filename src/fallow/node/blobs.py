"""Blobs between nodes: answering those who ask for ours, and fetching theirs from several sources at once.

How a download goes is told in `node/download.py`; here is who may have what, and that several who want the same blob
share one download.

Defends against: one node that takes all the sending, or fills a disk with more than was agreed. Does not defend
against: being asked for blobs by anybody who knows their id. An id is a secret as good as the content is hard to guess.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from fallow.errors import FallowError, UnavailableError, fail, first_of
from fallow.node.download import Download, FetchLimits, OnFault, OnProgress, Shared, too_large
from fallow.node.rpc import Caller, Router, Rpc
from fallow.ports import Blobs
from fallow.units import BlobId, NodeId
from fallow.wire.blob_id import CHUNK_BYTES, MAX_BLOB_BYTES
from fallow.wire.messages import BlobFound, BlobStat, FetchBlob, Message, NodeAddress
from fallow.wire.trees import MAX_TREE_BYTES, decode_tree

MAX_SERVED = 256
MAX_SERVED_PER_NODE = 32
MAX_FILES_AT_ONCE = 8


def serve_blobs(router: Router, blobs: Blobs) -> None:
    """Answer BlobStat and FetchBlob from `blobs`. Everything is checked against its hash before it is sent, so a
    failing disk does not make this node look like a liar."""
    serving: Counter[bytes] = Counter()

    @router.on(BlobStat)
    async def stat(caller: Caller, request: BlobStat) -> Message:
        try:
            blob = BlobId(request.blob)
            return BlobFound(blobs.size(blob), blobs.chunks(blob))
        except UnavailableError:
            return BlobFound(None)

    @router.stream(FetchBlob)
    async def send(
        caller: Caller, request: FetchBlob, inputs: AsyncIterator[Message]
    ) -> AsyncIterator[Message | bytes]:
        if serving.total() >= MAX_SERVED or serving[caller.node] >= MAX_SERVED_PER_NODE:
            raise fail("E1803", "This node is sending as many blobs as it can.")
        serving[caller.node] += 1
        try:
            blob, at = BlobId(request.blob), request.offset
            end = min(blobs.size(blob), at + request.length_bytes)
            while at < end:
                upto = min(end, (at // CHUNK_BYTES + 1) * CHUNK_BYTES)
                yield await asyncio.to_thread(blobs.read, blob, at, upto - at)
                at = upto
        finally:
            serving[caller.node] -= 1
            if not serving[caller.node]:
                del serving[caller.node]


class Fetcher:
    """Brings blobs from other nodes into `blobs`."""

    def __init__(
        self, rpc: Rpc, blobs: Blobs, on_fault: OnFault | None = None, limits: FetchLimits | None = None
    ) -> None:
        self._blobs = blobs
        self._shared = Shared(rpc, blobs, on_fault or _unheard, limits or FetchLimits())
        self._active: dict[BlobId, asyncio.Event] = {}

    async def fetch(
        self,
        blob: BlobId,
        sources: Sequence[NodeAddress],
        size_limit_bytes: int = MAX_BLOB_BYTES,
        *,
        owner: str = "",
        timeout_s: float = 3600.0,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Make sure that `blob` is here, pinned for `owner` if one is given; -> its size. Several calls for one blob
        share one download. Raises UnavailableError E1602 when no source could give it (or not in `timeout_s`), E1603
        when there is no room, RejectedError E1604 when it is larger than `size_limit_bytes`. What has come by then is
        kept for the next call."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._blobs.has(blob):
                    if (other := self._active.get(blob)) is not None:
                        await other.wait()
                        continue
                    over = self._active[blob] = asyncio.Event()
                    try:
                        await Download(self._shared, blob, size_limit_bytes, on_progress).run(sources)
                    finally:
                        del self._active[blob]
                        over.set()
        except TimeoutError as late:
            raise fail("E1602", f"blob {blob.hex()} did not arrive in {timeout_s:.0f} s") from late
        size_bytes = self._blobs.size(blob)
        if size_bytes > size_limit_bytes:
            raise too_large(blob, size_bytes, size_limit_bytes)
        if owner:
            self._blobs.pin(blob, owner)
        return size_bytes

    async def fetch_tree(
        self,
        tree: BlobId,
        sources: Sequence[NodeAddress],
        size_limit_bytes: int = MAX_BLOB_BYTES,
        *,
        owner: str = "",
        timeout_s: float = 3600.0,
    ) -> int:
        """Make sure that a tree and all its files are here; -> the size of the files together, at most
        `size_limit_bytes`. Errors as for `fetch`, and PeerFault E1102 when the blob is no tree, E1601 when it lies
        about the size of a file."""
        try:
            async with asyncio.timeout(timeout_s):
                size_bytes = await self.fetch(tree, sources, MAX_TREE_BYTES, owner=owner, timeout_s=timeout_s)
                found = decode_tree(await asyncio.to_thread(self._blobs.read, tree, 0, size_bytes))
                if found.size_bytes > size_limit_bytes:
                    raise too_large(tree, found.size_bytes, size_limit_bytes)
                sizes = {BlobId(entry.blob): entry.size_bytes for entry in found.entries}
                if any(sizes[BlobId(entry.blob)] != entry.size_bytes for entry in found.entries):
                    raise fail("E1601", f"tree {tree.hex()} gives two sizes for one file")
                await self._fetch_all(sizes, sources, owner, timeout_s)
        except TimeoutError as late:
            raise fail("E1602", f"tree {tree.hex()} did not arrive in {timeout_s:.0f} s") from late
        return found.size_bytes

    async def _fetch_all(
        self, sizes: dict[BlobId, int], sources: Sequence[NodeAddress], owner: str, timeout_s: float
    ) -> None:
        waiting = iter(sizes.items())

        async def some() -> None:
            for blob, size_bytes in waiting:
                if await self.fetch(blob, sources, size_bytes, owner=owner, timeout_s=timeout_s) != size_bytes:
                    raise fail("E1601", f"blob {blob.hex()} has not the size that its tree says")

        failure: FallowError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(MAX_FILES_AT_ONCE, len(sizes))):
                    group.create_task(some())
        except* FallowError as errors:
            failure = first_of(errors)
        if failure is not None:  # some versions of Python wrap what is raised in `except*`
            raise failure


def _unheard(source: NodeId, error: FallowError) -> None:
    """For who does not care."""
