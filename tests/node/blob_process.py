"""A node with a blob store as a process of its own, to be killed.

python tests/node/blob_process.py serve ROOT SEED FILE             prints its address and the blob's id, then serves
python tests/node/blob_process.py fetch ROOT SEED BLOB ADDRESS...  prints bytes that are here as they come, then "done"
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.iroh_transport import IrohTransport
from fallow.node.blobs import Fetcher, serve_blobs
from fallow.node.rpc import Router, Rpc, serve
from fallow.units import GIB, BlobId
from fallow.wire.messages import NodeAddress


def to_text(address: NodeAddress) -> str:
    return ",".join((address.node.hex(), *address.direct))


def from_text(text: str) -> NodeAddress:
    node, *direct = text.split(",")
    return NodeAddress(bytes.fromhex(node), tuple(direct))


async def serve_file(root: Path, seed: int, file: Path) -> None:
    blobs = DiskBlobs(root, GIB)
    blob = blobs.put_file(file)
    transport = await IrohTransport.bind(bytes([seed]) * 32)
    router = Router()
    serve_blobs(router, blobs)
    print(to_text(transport.address()), blob.hex(), flush=True)
    await serve(transport, router)


async def fetch(root: Path, seed: int, blob: BlobId, sources: list[NodeAddress]) -> None:
    transport = await IrohTransport.bind(bytes([seed]) * 32)
    async with Rpc(transport) as rpc:
        fetcher = Fetcher(rpc, DiskBlobs(root, GIB))
        await fetcher.fetch(blob, sources, on_progress=lambda here, size: print(here, flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    root, seed = Path(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "serve":
        asyncio.run(serve_file(root, seed, Path(sys.argv[4])))
    else:
        addresses = [from_text(text) for text in sys.argv[5:]]
        asyncio.run(fetch(root, seed, BlobId(bytes.fromhex(sys.argv[4])), addresses))
