"""A node with canned answers behind a real Unix socket, in a thread of its own, so that the command line and the
synchronous client talk to it as they do to a real one."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.node.local_socket import local_socket
from fallow.node.router import Caller, Router
from fallow.units import BlobId
from fallow.wire import local
from fallow.wire.codec import decode, encode
from fallow.wire.documents import Signed
from fallow.wire.messages import (
    Declined,
    Hardware,
    LaneItem,
    LaneResult,
    LaneStop,
    LaneTask,
    Message,
    NodeAddress,
    Offer,
    Ok,
    Rate,
    Shortfall,
    SignedOffer,
)
from fallow.wire.tasks import Part, TaskOutput

ME, BANK, PROVIDER = b"\x11" * 20, b"\x22" * 20, b"\x33" * 20
NODE = b"\x44" * 32
JOB, OTHER_JOB = b"\xaa" * 32, b"\xab" + b"\xbb" * 31
TREE, RECEIPT = b"\xcc" * 32, b"\xdd" * 32
ADDRESS = NodeAddress(NODE, ("127.0.0.1:4000",))
HARDWARE = Hardware("A fine CPU", 8_000, 16 << 30, 100 << 30, (), "x86-64 avx2 torch-2.13 t1")


def offer() -> Offer:
    rates = (Rate("train", 500, 2_000), Rate("generate", 400, 50))
    return Offer(PROVIDER, ADDRESS, Signed(b"", bytes(65)), HARDWARE, rates, BANK, 10_000_000, "home", 1_000, 60)


def fitting(price_ucr: int = 500) -> local.Candidate:
    return local.Candidate(PROVIDER, NODE, price_ucr, 2_000, Declined(()))


def lacking(*shortfalls: Shortfall) -> local.Candidate:
    return local.Candidate(b"\x55" * 20, b"\x66" * 32, 700, 100, Declined(shortfalls))


def job_view(job: bytes = JOB, **changes: Any) -> local.JobView:
    lease = local.LeaseView(b"\x77" * 32, PROVIDER, NODE, "closed", 500, 3, 6_000, 6_000, 3_000, 0)
    caught = local.LeaseView(b"\x78" * 32, b"\x55" * 20, b"\x66" * 32, "banned", 500, 1, 2_000, 0, 0, 1_000_000)
    rounds = (
        local.RoundView(0, 2, b"\x01" * 32, True, "3.500000", 4_096),
        local.RoundView(1, 2, b"\x02" * 32, True, "3.100000", 4_096),
    )
    view = local.JobView(
        job, "train", "notes", "done", 2, 2, 2_000_000, 3_000, 0, 1_700_000_000_000, 1_700_000_060_000, "", "",
        (lease, caught), rounds, workload="train",
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


NOTES = (
    local.JobNote(1, 1_700_000_000_000, "phase", "running"),
    local.JobNote(2, 1_700_000_001_000, "progress", "round 1", NODE, 1, 2),
    local.JobNote(3, 1_700_000_002_000, "caught", "its answer was wrong", b"\x66" * 32),
    local.JobNote(4, 1_700_000_003_000, "phase", "done"),
)


class FakeNode:
    """What it holds may be changed by a test before or between calls; `asked` is every request it got."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.wallet = local.Wallet(ME, BANK, 5_000_000, 0, 10_000_000, 0, 0, 7, 0)
        self.estimate = local.Estimate(
            6_000, 3_000, 9_000, (fitting(), lacking(Shortfall("ram_bytes", 4 << 30, 1 << 30)))
        )
        self.jobs = {JOB: job_view(), OTHER_JOB: job_view(OTHER_JOB, name="other", phase="running")}
        self.outputs: tuple[TaskOutput, ...] = ()
        self.tree = TREE
        self.no_results: FallowError | None = None
        self.models: tuple[local.ServedModel, ...] = (local.ServedModel("tiny", JOB, 2048, 1, 1_000, 500),)
        self.keys = [local.KeyView("fallow-abc", "tiny", 1_000_000, 10, False)]
        self.receipt = b"a receipt"
        self.watch_breaks = 0
        self.router = Router()
        self._answer_calls()
        self._answer_streams()

    def _answer_calls(self) -> None:
        wallet = self.router.on
        wallet(local.SeeWallet)(self._plain(lambda _: self.wallet))
        wallet(local.SeeNode)(
            self._plain(lambda _: local.NodeView("0.1.0", ME, ADDRESS, ("bank", "steward"), BANK, "", "", 1))
        )
        signed = encode(SignedOffer(encode(offer()), bytes(64)))
        wallet(local.SeeOffers)(self._plain(lambda _: local.OffersSeen((signed,))))
        wallet(local.EstimateJob)(self._plain(lambda _: self.estimate))
        wallet(local.WhyJob)(self._plain(lambda _: self.estimate))
        wallet(local.ListJobs)(self._plain(lambda _: local.JobList(tuple(self.jobs.values()))))
        wallet(local.GetJob)(self._plain(lambda request: local.JobOf(self._job(request.prefix))))
        wallet(local.SubmitJob)(self._plain(self._submit))
        wallet(local.CancelJob)(self._plain(self._cancel))
        wallet(local.GetResults)(self._plain(lambda _: self._results()))
        wallet(local.ListReceipts)(self._plain(lambda _: local.ReceiptList((RECEIPT,))))
        wallet(local.GetReceipt)(self._plain(lambda _: local.ReceiptBytes(self.receipt)))
        wallet(local.ListModels)(self._plain(lambda _: local.ModelList(self.models)))
        wallet(local.MoveMoney)(self._plain(lambda _: Ok()))
        wallet(local.AnswerCharge)(self._plain(lambda _: Ok()))
        wallet(local.ImportPath)(self._plain(lambda r: local.Imported(TREE, Path(r.path).stat().st_size, 1)))
        wallet(local.ExportTree)(self._plain(self._export))
        wallet(local.MakeKey)(self._plain(lambda _: local.KeyMade("fallow-secret")))
        wallet(local.ListKeys)(self._plain(lambda _: local.KeyList(tuple(self.keys))))
        wallet(local.ChangeKey)(self._plain(lambda _: Ok()))

    def _plain(self, answer: Any) -> Any:
        async def handler(_caller: Caller, request: Message) -> Message:
            self.asked.append(request)
            return answer(request)

        return handler

    def _job(self, prefix: bytes) -> local.JobView:
        found = [view for job, view in self.jobs.items() if job.startswith(prefix)]
        if len(found) != 1:
            raise fail("E2002", "No such job.")
        return found[0]

    def _results(self) -> Message:
        if self.no_results is not None:
            raise self.no_results
        return local.JobResults(self.outputs, self.tree)

    def _submit(self, request: local.SubmitJob) -> Message:
        self.jobs[request.job] = job_view(request.job, name=request.spec.name)
        if isinstance(request.spec.work, local.ServeJob):
            self.models += (local.ServedModel(request.spec.work.name, request.job, 2048, 1, 2_000, 500),)
        return local.Submitted(request.job)

    def _cancel(self, request: local.CancelJob) -> Message:
        self.jobs[request.job] = msgspec.structs.replace(self._job(request.job), phase="cancelled")
        return Ok()

    def _export(self, request: local.ExportTree) -> Message:
        folder = Path(request.path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / (request.name or "adapter_config.json")).write_text("{}")
        return Ok()

    def _answer_streams(self) -> None:
        @self.router.stream(local.WatchJob)
        async def _(_: Caller, request: local.WatchJob, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
            self.asked.append(request)
            self._job(request.job)
            for note in NOTES[request.after :]:
                yield note
                if note.number == 2 and self.watch_breaks:
                    self.watch_breaks -= 1
                    raise fail("E1801", "The node is going down.")

        @self.router.stream(local.OpenJobLane)
        async def _(_: Caller, request: local.OpenJobLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
            self.asked.append(request)
            async for task in inputs:
                if isinstance(task, LaneStop):
                    self.asked.append(task)
                if isinstance(task, LaneTask):
                    for item in lane_answer(task, receipts=request.receipts):
                        yield item

    def requests(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.asked if isinstance(request, kind)]


def lane_answer(task: LaneTask, *, receipts: bool) -> Iterator[Message]:
    """Echo; a refusal for b"fail"; a break of the protocol's silence for b"hang"; and for Generate, its prompt word by
    word."""
    if task.params == b"hang":
        return
    if task.params == b"fail":
        yield LaneResult(task.number, b"", 0, "E1704", "the worker died")
        return
    value = task.params
    if task.stream:
        try:
            request = decode(Generate, task.params)
        except FallowError:
            words = [task.params] * 3
        else:
            text = request.turns[-1].content[::-1]
            words = [piece.encode() for piece in text.split()]
            value = encode(GenerateValue(text, "stop", 3, len(words)))
        for word in words:
            yield LaneItem(task.number, word)
    yield LaneResult(task.number, value, 1)
    if task.stream or receipts:
        yield local.LaneReceipt(task.number, RECEIPT)


@contextmanager
def running(home: Path) -> Generator[FakeNode]:
    """Run a fake node on `home` while the block runs."""
    node = FakeNode()
    ways_out: queue.Queue[Callable[[], object]] = queue.Queue()

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with local_socket(home, node.router):
            ways_out.put(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fake node")
    thread.start()
    leave = ways_out.get(timeout=10)
    try:
        yield node
    finally:
        leave()
        thread.join(10)


def output(text: bytes, *parts: Part) -> TaskOutput:
    return TaskOutput(text, parts)


EMPTY_BLOB = BlobId(bytes(32))
