"""A home whose steward remembers in a former form. Its keys, books, papers, notes and outcomes are read as they are; of
what was under way nothing goes on: each such job ends with E1405, the escrows of its leases are closed so that what
they hold comes back, and what was found right so far stays paid. A new home is one in which nothing is found."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from fallow.node.services import Services
from fallow.node.steward.blobs import keep_results
from fallow.node.steward.records import Records
from fallow.rules.steward.events import JobEnded, KeepReceipt, Note
from fallow.rules.steward.remains import Remains
from fallow.rules.steward.shapes.registry import SHAPES
from fallow.rules.steward.snapshot import Papers, write_snapshot
from fallow.rules.steward.state import Leftover, Phase, State
from fallow.units import format_money
from fallow.wire.codec import decode, encode, recall
from fallow.wire.documents import Order, Settlement
from fallow.wire.local import JobSpec, JobView, LeaseView

log = structlog.get_logger()

CODE = "E1405"
WHAT = "it was under way when Fallow was replaced by one that remembers jobs in another form, or lacks what one takes"
FORMER_LEASES = "seat/"
"""Where the form before this one kept leases of jobs that had left its state."""


class Salvage:
    """Finds what is worth keeping, and writes it in today's form. Blocks."""

    def __init__(self, services: Services, records: Records) -> None:
        self._log, self._blobs, self._now_ms = services.log, services.blobs, services.clock.now_ms()
        self._records = records
        charges = [both[0] for lease in records.refuted() if (both := records.verdict(lease)) is not None]
        self._refuted = {charge.lease: bytes(charge.accused.output) for charge in charges}
        self._remains = Remains(services.bank_account, set(self._refuted.values()))
        self._done: dict[bytes, list[KeepReceipt]] = {}

    def run(self, stream: str, snapshot: str) -> bytes:
        """-> the snapshot to go on from. It is on disk, in the place of all former records: all of it or nothing, so
        that a crash only means doing this again."""
        rows = self._log.read(stream)
        former = self._log.keys(FORMER_LEASES)
        self._remains.read(self._cells([snapshot, *former]))
        self._remains.read(raw for _, raw in rows)
        for kept in (recall(KeepReceipt, raw) for raw in self._cells(self._log.keys("receipt/"))):
            self._done.setdefault(kept.lease, []).append(kept)
        papers = {lease: found for lease in self._remains.terms if (found := self._papers(lease)) is not None}
        cells = {f"lease/{lease.hex()}": encode(found) for lease, found in papers.items()}
        state = State(leftovers={lease: self._leftover(lease) for lease in papers if not self._closed(lease)})
        jobs = {found.job for found in papers.values()} | set(self._remains.asked)
        for job in jobs:
            cells |= self._job(job, {lease: found for lease, found in papers.items() if found.job == job})
        last = rows[-1][0] if rows else self._log.append(stream, [])
        saved = write_snapshot(state, last)
        self._log.cut(stream, last, cells | {snapshot: saved}, former)
        if jobs:
            log.warning("jobs of a former form were ended", jobs=len(jobs), leases=len(state.leftovers))
        return saved

    def _cells(self, keys: Iterable[str]) -> list[bytes]:
        return [raw for key in keys if (raw := self._log.get(key)) is not None]

    def _leftover(self, lease: bytes) -> Leftover:
        return self._remains.leftover(lease, self._paid_ucr(lease))

    def _paid_ucr(self, lease: bytes) -> int:
        return sum(kept.paid_ucr for kept in self._done.get(lease, ()))

    def _papers(self, lease: bytes) -> Papers | None:
        """None for a lease that only one side signed, or whose order is lost: nobody's money is in it."""
        terms, found = self._remains.terms[lease], self._remains
        order = self._records.document(terms.order)
        ours, theirs = found.ours.get(lease), found.theirs.get(lease)
        certificate = found.certificates.get(terms.provider_node)
        if order is None or ours is None or theirs is None or certificate is None:
            return None
        units, refuted = sum(kept.units for kept in self._done.get(lease, ())), self._refuted.get(lease, b"")
        job = decode(Order, order.body).job
        return Papers(job, ours, theirs, certificate, units, self._paid_ucr(lease), found.outputs.get(refuted))

    def _closed(self, lease: bytes) -> bool:
        settled = self._records.settlement(lease)
        return settled is not None and decode(Settlement, settled.body).closed_ms > 0

    def _job(self, job: bytes, papers: dict[bytes, Papers]) -> dict[str, bytes]:
        """The cell that shows a job to people from now on; none for one that has such a cell."""
        if self._log.get(f"job/{job.hex()}") is not None:
            return {}
        ended = self._records.outcome(job)
        if ended is None:
            ended = JobEnded(job, CODE, WHAT, ())
            keep_results(self._blobs, ended)
            held = format_money(sum(self._remains.terms[lease].cap_ucr for lease in papers if not self._closed(lease)))
            text = f"The job has ended: {WHAT}. What its leases hold, {held}, comes back as they are closed ({CODE})."
            last = max((key.rpartition("/")[2] for key in self._log.keys(f"note/{job.hex()}/")), default="0")
            self._records.keep([ended, Note(job, int(last) + 1, self._now_ms, "failed", text)])
        return {f"job/{job.hex()}": encode(self._view(job, ended, papers))}

    def _view(self, job: bytes, ended: JobEnded, papers: dict[bytes, Papers]) -> JobView:
        created_ms, spec = self._remains.asked.get(job, (self._now_ms, None))
        phase = {"": Phase.DONE, "E1402": Phase.CANCELLED}.get(ended.code, Phase.FAILED)
        return JobView(
            job=job, kind=_form_of(spec), name="" if spec is None else spec.name,
            phase=phase.value, done=sum(output is not None for output in ended.outputs), total=len(ended.outputs),
            budget_ucr=0 if spec is None else spec.budget_ucr,
            spent_ucr=sum(one.owed_ucr for one in papers.values()), locked_ucr=0, created_ms=created_ms,
            ended_ms=self._now_ms, failure_code=ended.code, failure=ended.what,
            leases=tuple(self._lease(lease, one) for lease, one in papers.items()), rounds=(),
        )  # fmt: skip

    def _lease(self, lease: bytes, papers: Papers) -> LeaseView:
        terms, units = self._remains.terms[lease], papers.final_units
        state = "closed" if self._closed(lease) else "leaving"
        tasks = len(self._done.get(lease, ()))
        return LeaseView(
            lease, terms.provider, terms.provider_node, state, terms.price_ucr, tasks, units, units, papers.owed_ucr, 0
        )  # fmt: skip


def _form_of(spec: JobSpec | None) -> str:
    """What people call the job's form; "" for one that nobody here knows."""
    shape = None if spec is None else SHAPES.get(type(spec.work))
    return "" if shape is None else shape.name
