"""What the steward keeps for people: notes, outcomes, receipts, the signed papers that receipts are made of, and jobs
that have left its state. All of it lies in cells of the EventLog under keys of their own, so that writing a record
twice changes nothing. Outcomes, receipts and papers stay for good; of ended jobs the last KEPT_JOBS are shown."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping

from blake3 import blake3

from fallow.node.services import Services
from fallow.rules.steward.events import (
    Charge,
    JobEnded,
    KeepReceipt,
    Note,
    StewardEffect,
)
from fallow.rules.steward.snapshot import Papers, Retired
from fallow.units import Digest
from fallow.wire.codec import decode, encode, recall
from fallow.wire.documents import Lease, Signed
from fallow.wire.local import JobNote, JobView

MAX_LIVE_NOTES = 512
KEPT_JOBS = 1_000
"""Ended jobs that are listed and keep their notes."""


def receipt_id(lease: bytes, claim_hash: bytes) -> Digest:
    """The id of the receipt of one claim."""
    return Digest(blake3(b"fallow receipt" + lease + claim_hash).digest())


def refuted_receipt_id(lease: bytes) -> Digest:
    """The id of the receipt of the claim for which a lease's provider was caught."""
    return Digest(blake3(b"fallow refuted receipt" + lease).digest())


class Records:
    """Notes, outcomes and papers of one steward."""

    def __init__(self, services: Services) -> None:
        self._log = services.log
        self._changed = asyncio.Event()
        self._notes: dict[bytes, list[JobNote]] = {}
        self._live: dict[bytes, deque[tuple[int, JobNote]]] = {}
        self._shown = 0
        self.retired: dict[bytes, JobView] = {}
        """Jobs that have left the brain's state, oldest first; read at the start."""

    # records of the brain -------------------------------------------------------------------------------------------

    def keep(self, effects: Iterable[StewardEffect]) -> None:
        """Write records with one flush; doing so again changes nothing. Blocks: call it in a thread, and `tell` after
        it."""
        cells: dict[str, bytes] = {}
        for effect in effects:
            match effect:
                case Note():
                    cells[_note_key(effect)] = encode(_job_note(effect))
                case KeepReceipt():
                    name = receipt_id(effect.lease, effect.claim_hash).hex()
                    cells[f"receipt/{name}"] = encode(effect)
                    if effect.spec is not None:  # of a lane batch, each answer has a receipt that its client was told
                        cells[f"receipts/{effect.job.hex()}/{name}"] = b""
                case JobEnded():
                    cells[f"ended/{effect.job.hex()}"] = encode(effect)
                case _:
                    pass
        if cells:
            self._log.put_all(cells)

    def tell(self, effects: Iterable[StewardEffect]) -> None:
        """Wake whoever watches, after `keep`."""
        for effect in effects:
            if isinstance(effect, Note):
                notes = self._notes.get(effect.job)
                if notes is not None and (not notes or notes[-1].number < effect.number):
                    notes.append(_job_note(effect))
                self._live.pop(effect.job, None)
        self._wake()

    def outcome(self, job: bytes) -> JobEnded | None:
        """How the job ended; None while it runs."""
        raw = self._log.get(f"ended/{job.hex()}")
        return None if raw is None else recall(JobEnded, raw)

    def receipts(self, job: bytes) -> list[bytes]:
        """The ids of a job's receipts."""
        prefix = f"receipts/{job.hex()}/"
        return [bytes.fromhex(key.removeprefix(prefix)) for key in self._log.keys(prefix)]

    def find_receipts(self, prefix_hex: str) -> list[bytes]:
        """Receipt ids that begin with `prefix_hex`."""
        found = [*self._log.keys(f"receipt/{prefix_hex}"), *self._log.keys(f"lane-receipt/{prefix_hex}")]
        return [bytes.fromhex(key.split("/")[1]) for key in found]

    def receipt(self, identifier: bytes) -> KeepReceipt | None:
        raw = self._log.get(f"receipt/{identifier.hex()}")
        return None if raw is None else recall(KeepReceipt, raw)

    # jobs that have left the state ------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the ended jobs. Blocks."""
        raws = [self._log.get(key) for key in self._log.keys("job/")]
        self._retired(recall(JobView, raw) for raw in raws if raw is not None)

    def _retired(self, views: Iterable[JobView]) -> None:
        found = self.retired | {view.job: view for view in views}
        self.retired = dict(sorted(found.items(), key=lambda item: (item[1].created_ms, item[0])))

    def charges(self, leases: Iterable[bytes]) -> dict[bytes, Charge]:
        """The upheld charges against these leases. Blocks."""
        known = set(leases)
        found = {lease: self.verdict(lease) for lease in self.refuted() if lease in known}
        return {lease: both[0] for lease, both in found.items() if both is not None}

    def take_over(self, jobs: Iterable[Retired]) -> list[bytes]:
        """Show these jobs from now on; -> those that are too many now, and are not shown any more."""
        self._retired(one.view for one in jobs)
        gone = list(self.retired)[: max(0, len(self.retired) - KEPT_JOBS)]
        for job in gone:
            del self.retired[job]
            self._notes.pop(job, None)
        return gone

    def cells_of(self, jobs: Iterable[Retired], gone: Iterable[bytes]) -> tuple[dict[str, bytes], list[str]]:
        """-> the cells to write for jobs that leave the state, and the keys to forget of those that are `gone`: to be
        written together with the snapshot that they are not in. Blocks."""
        cells: dict[str, bytes] = {}
        for one in jobs:
            cells[f"job/{one.view.job.hex()}"] = encode(one.view)
            cells |= {f"lease/{lease.hex()}": encode(papers) for lease, papers in one.leases.items()}
        keys = [key for job in gone for key in (f"job/{job.hex()}", *self._log.keys(f"note/{job.hex()}/"))]
        return cells, keys

    def papers(self, lease: bytes) -> Papers | None:
        """Those of a lease whose job has left the state."""
        raw = self._log.get(f"lease/{lease.hex()}")
        return None if raw is None else recall(Papers, raw)

    # signed papers --------------------------------------------------------------------------------------------------

    def keep_documents(self, documents: Mapping[bytes, Signed]) -> None:
        """Keep signed orders and quotes under their EIP-712 hashes."""
        self._log.put_all({f"document/{digest.hex()}": encode(one) for digest, one in documents.items()})

    def document(self, digest: bytes) -> Signed | None:
        raw = self._log.get(f"document/{digest.hex()}")
        return None if raw is None else recall(Signed, raw)

    def order(self, lease: Signed) -> Signed | None:
        """The order that a lease of ours names."""
        return self.document(decode(Lease, lease.body).order)

    def keep_settlement(self, lease: bytes, settlement: Signed) -> None:
        self._log.put(f"settlement/{lease.hex()}", encode(settlement))

    def settlement(self, lease: bytes) -> Signed | None:
        raw = self._log.get(f"settlement/{lease.hex()}")
        return None if raw is None else recall(Signed, raw)

    def keep_draw(self, claim: bytes, draw: Signed) -> None:
        self._log.put(f"draw/{claim.hex()}", encode(draw))

    def draw(self, claim: bytes) -> Signed | None:
        raw = self._log.get(f"draw/{claim.hex()}")
        return None if raw is None else recall(Signed, raw)

    def keep_verdict(self, charge: Charge, verdict: Signed) -> None:
        lease = charge.lease.hex()
        self._log.put_all({f"verdict/{lease}": encode(verdict), f"charge/{lease}": encode(charge)})

    def verdict(self, lease: bytes) -> tuple[Charge, Signed] | None:
        """The charge that the bank upheld against a lease, with our signature."""
        charge, verdict = self._log.get(f"charge/{lease.hex()}"), self._log.get(f"verdict/{lease.hex()}")
        if charge is None or verdict is None:
            return None
        return recall(Charge, charge), recall(Signed, verdict)

    def refuted(self) -> list[bytes]:
        """The leases whose provider was caught, as the bank agreed."""
        return [bytes.fromhex(key.removeprefix("verdict/")) for key in self._log.keys("verdict/")]

    # notes ----------------------------------------------------------------------------------------------------------

    def notes(self, job: bytes, after: int) -> list[JobNote]:
        """The kept notes of a job from the one after `after`."""
        if job not in self._notes:
            raws = [self._log.get(key) for key in self._log.keys(f"note/{job.hex()}/")]
            self._notes[job] = [recall(JobNote, raw) for raw in raws if raw is not None]
        kept = self._notes[job]
        return kept[bisect_right(kept, after, key=lambda note: note.number) :]

    def show(self, job: bytes, note: JobNote) -> None:
        """Pass a passing note (progress, a log line) to whoever watches now; it is not kept."""
        self._shown += 1
        self._live.setdefault(job, deque(maxlen=MAX_LIVE_NOTES)).append((self._shown, note))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self, job: bytes, after: int) -> AsyncIterator[JobNote]:
        """Notes as they come, kept ones first; ends after the job's outcome is known and all are told. Of passing notes
        a slow reader misses the oldest."""
        seen = 0
        while True:
            changed = self._changed
            for note in self.notes(job, after):
                after = note.number
                yield note
            for number, note in list(self._live.get(job, ())):
                if number > seen:
                    seen = number
                    yield note
            if changed is not self._changed:
                continue
            if self.outcome(job) is None:
                await changed.wait()
                continue
            self._notes.pop(job, None)  # the outcome is on disk a moment before we are told of the notes beside it
            for note in self.notes(job, after):
                yield note
            return


def _note_key(note: Note) -> str:
    return f"note/{note.job.hex()}/{note.number:08d}"


def _job_note(note: Note) -> JobNote:
    return JobNote(note.number, note.at_ms, note.kind, note.text, note.node, note.done, note.total)
