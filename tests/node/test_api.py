"""What a node answers its owner, over its socket, on a real pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.steward.steward_net import Desk, batch, lane_job, office

from fallow.errors import FallowError
from fallow.node import api
from fallow.node.local_socket import local_socket
from fallow.node.router import Router
from fallow.node.steward.records import Records
from fallow.rules.steward.events import Note, StewardEffect
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.units import UCR_PER_CR, BlobId
from fallow.wire import local
from fallow.wire.messages import Message, Ok
from fallow.wire.tasks import Part
from fallow.wire.trees import decode_tree

JOB = b"j" * 32
LAST = "The job is done."


async def code_of(link: NodeSocket, request: Message) -> str:
    with pytest.raises(FallowError) as refused:
        await link.call(request)
    return refused.value.code


async def notes(link: NodeSocket, request: local.WatchJob) -> list[local.JobNote]:
    async with link.open(request) as stream:
        return [note async for note in stream if isinstance(note, local.JobNote)]


async def test_a_job_over_the_socket(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        link, spec = desk.link, batch(b"one", b"two")
        assert await link.call(local.SubmitJob(JOB, spec)) == local.Submitted(JOB)
        assert await link.call(local.SubmitJob(JOB, batch(b"x", budget=10**15))) == local.Submitted(
            JOB
        )  # known already
        told = [note for note in await notes(link, local.WatchJob(JOB)) if note.number]  # 0: passing ones
        kept = [note.number for note in told if note.number]  # passing ones have no number
        assert kept == list(range(1, len(kept) + 1))
        assert await notes(link, local.WatchJob(JOB, after=2, follow=False)) == (await all_notes(link))[2:]
        results = await link.call(local.GetResults(JOB))
        assert isinstance(results, local.JobResults)
        assert [output.value for output in results.outputs] == [b"one", b"two"]
        view = await link.call(local.GetJob(JOB[:3]))
        assert isinstance(view, local.JobOf)
        assert view.job.job == JOB
        listed = await link.call(local.ListJobs())
        assert isinstance(listed, local.JobList)
        assert [one.job for one in listed.jobs] == [JOB]
        why = await link.call(local.WhyJob(JOB))
        assert isinstance(why, local.Estimate)
        assert len(why.candidates) == 1
        receipts = await link.call(local.ListReceipts(JOB))
        assert isinstance(receipts, local.ReceiptList)
        assert isinstance(await link.call(local.GetReceipt(receipts.receipts[0])), local.ReceiptBytes)


async def test_a_job_that_is_shown_as_done_has_its_last_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = Records.keep, threading.Event()

    def slow_keep(self: Records, effects: Sequence[StewardEffect]) -> None:
        if any(isinstance(effect, Note) and effect.text == LAST for effect in effects):
            written.wait(20)
        real(self, effects)

    monkeypatch.setattr(Records, "keep", slow_keep)
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        link = desk.link
        await link.call(local.SubmitJob(JOB, batch(b"one")))
        while desk.steward.view(JOB).phase != "done":  # decided, and not yet on disk
            await asyncio.sleep(0.01)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(link.call(request)) for request in (local.GetJob(JOB), local.ListJobs())]
            await asyncio.sleep(0.2)
            assert not any(one.done() for one in asked)
            written.set()
        one, listed = (task.result() for task in asked)
        assert isinstance(one, local.JobOf)
        assert listed == local.JobList((one.job,))
        assert one.job.phase == "done"
        assert (await all_notes(link))[-1].text == LAST


async def all_notes(link: NodeSocket) -> list[local.JobNote]:
    return await notes(link, local.WatchJob(JOB, follow=False))


async def test_what_cannot_be_is_told_and_moves_no_money(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        link, unknown = desk.link, b"u" * 32
        assert await code_of(link, local.SubmitJob(JOB, batch(b"x", budget=101 * UCR_PER_CR))) == "E1301"
        assert desk.steward.jobs() == []
        for request in (
            local.GetJob(unknown), local.CancelJob(unknown), local.GetResults(unknown), local.WhyJob(unknown),
            local.ListReceipts(unknown), local.GetReceipt(unknown), local.OpenJobLane(unknown),
        ):  # fmt: skip
            with pytest.raises(FallowError) as refused:
                if isinstance(request, local.OpenJobLane):
                    async with link.open(request) as stream:
                        await anext(aiter(stream))
                else:
                    await link.call(request)
            assert refused.value.code == "E2002", request
        await link.call(local.SubmitJob(JOB, batch(b"x")))
        assert await code_of(link, local.GetResults(JOB)) == "E1403"  # still running
        wallet = await link.call(local.SeeWallet())
        assert isinstance(wallet, local.Wallet)
        assert wallet.available_ucr == 100 * UCR_PER_CR
        assert await link.call(local.CancelJob(JOB)) == Ok()
        await desk.settled(JOB)
        assert await code_of(link, local.GetResults(JOB)) == "E1402"


async def test_what_nobody_registered_or_nobody_can_mean_is_refused_by_name(tmp_path: Path) -> None:
    spins = local.BatchJob("spin", (b"1", b"7000000"), (), 6)
    unheard = msgspec.structs.replace(spins, workload="render")
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        for work, verify, named in (
            (unheard, "none", "'render'"),
            (local.LaneJob("render", 1), "none", "'render'"),
            (local.LaneJob("train", 1), "none", "train"),
            (spins, "zk:proof=1", "'zk:proof=1'"),
            (spins, "none", "Task 1 is 7 units of spin; the job meters 6"),
            (msgspec.structs.replace(spins, params=(b"seven",)), "none", "Task 0 is no spin"),
            (msgspec.structs.replace(spins, params=()), "none", "without tasks"),
        ):
            spec = msgspec.structs.replace(batch(b"x"), work=work, verify=verify)
            with pytest.raises(FallowError) as refused:
                await desk.link.call(local.SubmitJob(JOB, spec))
            assert (refused.value.code, named in refused.value.what) == ("E2001", True), refused.value
        assert desk.steward.jobs() == []


class Quartet(msgspec.Struct, frozen=True, array_like=True, tag="quartet"):
    """A form of jobs that this process cannot read: it is no `Work` here."""

    workload: str


class Loose(local.Work, msgspec.Struct, frozen=True, array_like=True, tag="loose"):
    """One that can be read, and that nobody registered."""

    workload: str  # pyright: ignore[reportIncompatibleMethodOverride]


async def test_unknown_forms_are_refused_by_name(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        for work, code, named in ((Quartet("echo"), "E1102", "'quartet'"), (Loose("echo"), "E2001", "'Loose'")):
            spec = msgspec.structs.replace(batch(b"x"), work=work)
            for request in (local.SubmitJob(JOB, spec), local.EstimateJob(spec)):
                with pytest.raises(FallowError) as refused:
                    await desk.link.call(request)
                assert (refused.value.code, named in refused.value.what) == (code, True), refused.value
        assert desk.steward.jobs() == []


async def test_a_name_is_served_once(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        work = local.ServeJob("m", b"m" * 32, b"", 1, 512)
        spec = msgspec.structs.replace(lane_job(), work=work, max_price_ucr=5)
        await desk.link.call(local.SubmitJob(JOB, spec))
        assert await code_of(desk.link, local.SubmitJob(b"k" * 32, spec)) == "E2001"
        models = await desk.link.call(local.ListModels())
        assert isinstance(models, local.ModelList)
        assert [(one.name, one.job, one.ready, one.price_ucr) for one in models.models] == [("m", JOB, 0, 5)]
        await desk.link.call(local.CancelJob(JOB))
        await desk.settled(JOB)
        assert (await desk.link.call(local.ListModels())) == local.ModelList(())


async def test_money_moves_as_told(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, (seller,)):
        link = desk.link
        grant = local.MoveMoney("transfer", 5 * UCR_PER_CR, seller.services.identity.account)
        assert await code_of(link, grant) == "E1301"  # what came with the ticket is for work
        await desk.pool.grant(desk.services.identity.account, 5 * UCR_PER_CR)
        for action in ("deposit", "transfer"):
            to = seller.services.identity.account if action == "transfer" else b""
            assert await link.call(local.MoveMoney(action, 5 * UCR_PER_CR, to)) == Ok()
        assert await link.call(local.MoveMoney("unbond", 2 * UCR_PER_CR)) == Ok()
        wallet, books = await link.call(local.SeeWallet()), await link.call(local.SeeBooks())
        assert isinstance(wallet, local.Wallet)
        assert isinstance(books, local.PoolBooks)
        assert wallet.available_ucr == 95 * UCR_PER_CR
        assert (wallet.staked_ucr, wallet.unbonding_ucr) == (5 * UCR_PER_CR, 2 * UCR_PER_CR)
        assert books.minted_ucr == books.sum_ucr
        assert await code_of(link, local.MoveMoney("deposit", 10**12)) == "E1301"
        assert await code_of(link, local.MoveMoney("grant", 5, b"a" * 20)) == "E1303"  # not the operator
        assert await code_of(link, local.MoveMoney("burn", 5)) == "E2001"
        assert await code_of(link, local.AnswerCharge(b"l" * 32, "appeal")) == "E2002"
        assert await code_of(link, local.AnswerCharge(b"l" * 32, "maybe")) == "E2001"


async def files(desk: Desk, tmp_path: Path) -> Any:
    owner = Router()
    api.serve_files(owner, desk.services)
    api.serve_node(owner, desk.services, ("steward",), "")
    api.serve_offers(owner, desk.services)
    return local_socket(tmp_path / "files", owner)


async def test_files_go_in_and_come_out(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, _), await files(desk, tmp_path):
        link = NodeSocket(socket_path(tmp_path / "files"))
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.txt").write_text("hello")
        tree = await link.call(local.ImportPath(str(tmp_path / "in")))
        assert isinstance(tree, local.Imported)
        assert (tree.files, tree.size_bytes) == (1, 5)
        assert await link.call(local.ExportTree(tree.tree, str(tmp_path / "out"))) == Ok()
        assert (tmp_path / "out" / "a.txt").read_text() == "hello"
        blob = desk.services.blobs.put(b"one blob")
        assert await link.call(local.ExportTree(blob, str(tmp_path / "blob"), "x.bin")) == Ok()
        assert (tmp_path / "blob" / "x.bin").read_bytes() == b"one blob"
        for name in ("../x", ".hidden", "a/b", ".."):
            assert await code_of(link, local.ExportTree(blob, str(tmp_path / "blob"), name)) == "E2001"
        assert sorted(path.name for path in (tmp_path / "blob").iterdir()) == ["x.bin"]
        assert await code_of(link, local.ExportTree(blob, str(tmp_path / "blob" / "x.bin"), "y")) == "E2003"
        assert await code_of(link, local.ExportTree(b"m" * 32, str(tmp_path / "no"), "y")) == "E1602"
        offers, view = await link.call(local.SeeOffers()), await link.call(local.SeeNode())
        assert isinstance(offers, local.OffersSeen)
        assert isinstance(view, local.NodeView)
        assert len(offers.offers) == 1
        assert (view.account, view.roles) == (desk.services.identity.account, ("steward",))
        estimate = await link.call(local.EstimateJob(batch(b"x")))
        assert isinstance(estimate, local.Estimate)
        assert [one.shortfalls.shortfalls for one in estimate.candidates] == [()]


async def test_the_result_of_training_is_one_folder(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        blob = desk.services.blobs.put(b"weights")
        parts = (Part("adapter/b.bin", blob, 7), Part("update", b"u" * 32, 1), Part("adapter/a.json", blob, 7))
        tree = api.result_tree(desk.services, parts)
        entries = decode_tree(desk.services.blobs.read(BlobId(tree), 0, 1 << 20)).entries
        assert [entry.path for entry in entries] == ["a.json", "b.bin"]
        assert api.result_tree(desk.services, (Part("update", blob, 7),)) == b""
