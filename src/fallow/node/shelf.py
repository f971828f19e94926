"""Inputs of tasks laid out as files on this machine: from the node's own store, else from peers that may have them.

Defends against: a peer that sends something else (every piece is checked against the id) or more than was said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from fallow.errors import FallowError
from fallow.kinds.chain import is_state
from fallow.node.folders import materialize
from fallow.node.services import Services
from fallow.units import BlobId
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import Part
from fallow.wire.trees import MAX_TREE_BYTES, is_tree

log = structlog.get_logger()

FETCH_S = 1_800.0


class Shelf:
    """Where parts are laid out."""

    def __init__(self, services: Services) -> None:
        self._s = services

    async def lay(
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
