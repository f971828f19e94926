"""Laying out what a receipt's work was made from: the owner's own receipts only, from here or from who did the work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.node.steward.steward_net import Desk, office
from tests.wire.parties import lane_receipt, receipt, sealed

from fallow.errors import FallowError
from fallow.node.steward.holdings import Holdings
from fallow.node.steward.receipts import Receipts
from fallow.units import BlobId
from fallow.wire import local
from fallow.wire.tasks import Part
from fallow.wire.trees import TreeEntry, encode_tree

JOB = b"j" * 32
TEXT = b"what the task reads" * 100


async def a_receipt(desk: Desk, *parts: Part) -> bytes:
    """Of a finished task with these inputs."""
    work = local.BatchJob("echo", (b"hello",), parts, 1)
    await desk.steward.submit(JOB, local.JobSpec(work, 5_000_000, 0, 1, verify="none"))
    await desk.settled(JOB)
    made = Receipts(desk.services, desk.steward.records, desk.steward.state)
    (identifier,) = desk.steward.records.receipts(JOB)
    return await made.sealed(identifier)


def lose(desk: Desk, blob: bytes) -> None:
    """The file is gone from the owner's store, as after a clean-up."""
    desk.services.blobs.path(BlobId(blob)).unlink()


async def code_of(holdings: Holdings, request: local.LayOut) -> str:
    with pytest.raises(FallowError) as refused:
        await holdings.lay_out(request)
    return refused.value.code


async def test_what_is_gone_here_comes_from_who_did_the_work(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, (seller,)):
        blobs = desk.services.blobs
        file = blobs.put(TEXT)
        tree = blobs.put(encode_tree([TreeEntry("a.txt", file, len(TEXT), False)]))
        one, folder = Part("one", file, len(TEXT)), Part("folder", tree, 0)
        data = await a_receipt(desk, one, folder)
        holdings = Holdings(desk.services, desk.steward)
        here = await holdings.lay_out(local.LayOut(data, (one, folder), str(tmp_path / "here"), 1 << 20))
        assert [Path(path).read_bytes() for path in here.paths] == [TEXT, TEXT]
        lose(desk, file)
        there = await holdings.lay_out(local.LayOut(data, (folder, one), str(tmp_path / "there"), 1 << 20))
        assert there.parts == (folder, one)
        assert [Path(path).read_bytes() for path in there.paths] == [TEXT, TEXT]
        assert there.context_tokens == 0
        lose(desk, file)
        assert await code_of(holdings, local.LayOut(data, (one,), str(tmp_path / "x"), 10)) == "E1604"
        seller.services.blobs.path(file).chmod(0o600)
        seller.services.blobs.path(file).write_bytes(b"something else")
        gone = await holdings.lay_out(local.LayOut(data, (one, folder), str(tmp_path / "gone"), 1 << 20))
        assert gone.paths == ("", "")


async def test_only_what_a_receipt_of_the_owners_own_names(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        secret, file = desk.services.blobs.put(b"secret"), desk.services.blobs.put(TEXT)
        data = await a_receipt(desk, Part("one", file, len(TEXT)))
        holdings, path = Holdings(desk.services, desk.steward), str(tmp_path / "out")
        for code, request in (
            ("E2002", local.LayOut(data, (Part("one", secret, 6),), path, 1 << 20)),
            ("E2002", local.LayOut(sealed(receipt()), (Part("in", b"i" * 32, 5),), path, 1 << 20)),
            ("E2002", local.LayOut(sealed(lane_receipt()), (), path, 1 << 20)),
            ("E1501", local.LayOut(data[:-1] + b"?", (), path, 1 << 20)),
            ("E1501", local.LayOut(b"", (), path, 1 << 20)),
            ("E1102", local.LayOut(data, (Part("../../one", file, len(TEXT)),), path, 1 << 20)),
        ):
            assert await code_of(holdings, request) == code, request.parts
        assert not list(tmp_path.glob("one*"))
        assert await holdings.lay_out(local.LayOut(data, (), path, 1 << 20)) == local.LaidOut((), ())


async def test_a_lane_is_told_what_its_job_serves(tmp_path: Path) -> None:
    """Receipts of streamed answers do not name the model; the steward knows its job."""
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        blobs = desk.services.blobs
        model, adapter = blobs.put(b"model"), blobs.put(b"adapter")
        spec = local.JobSpec(local.ServeJob("m", model, adapter, 1, 512), 5_000_000, 5, 1, verify="none")
        await desk.steward.submit(JOB, spec)
        holdings = Holdings(desk.services, desk.steward)
        mine = msgspec.structs.replace(lane_receipt(), job=JOB)
        holdings._own = lambda _data: mine  # type: ignore[method-assign]  # whose it is was tested above
        laid = await holdings.lay_out(local.LayOut(b"", (), str(tmp_path / "out"), 1 << 20))
        assert laid.context_tokens == 512
        assert [(part.name, part.blob) for part in laid.parts] == [("model", model), ("adapter", adapter)]
        assert [Path(path).read_bytes() for path in laid.paths] == [b"model", b"adapter"]
        await desk.steward.cancel(JOB)
        await desk.settled(JOB)
