"""What the steward keeps for people: notes, outcomes, receipts, and the signed papers that receipts are made of. All of
it lies in cells of the EventLog under keys of their own, so that writing a record twice changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec
from blake3 import blake3

from fallow.node.services import Services
from fallow.rules.node.steward_types import (
    Charge,
    JobEnded,
    KeepReceipt,
    LedgerClosed,
    Note,
    StewardEffect,
)
from fallow.units import Digest
from fallow.wire.codec import decode, encode
from fallow.wire.documents import Signed, Word
from fallow.wire.local import JobNote

MAX_RECORD_BYTES = 32 << 20
MAX_LIVE_NOTES = 512


def receipt_id(lease: bytes, claim_hash: bytes) -> Digest:
    """The id of the receipt of one claim."""
    return Digest(blake3(b"fallow receipt" + lease + claim_hash).digest())


def lane_receipt_id(lease: bytes, number: int) -> Digest:
    """The id of the receipt of one lane task, known before its batch is claimed."""
    return Digest(blake3(b"fallow lane receipt" + lease + number.to_bytes(8, "big")).digest())


class LaneReceiptNote(msgspec.Struct, frozen=True, array_like=True):
    """What a lane receipt's id stands for."""

    job: Word
    lease: Word
    number: int


class Records:
    """Notes, outcomes and papers of one steward."""

    def __init__(self, services: Services) -> None:
        self._log = services.log
        self._clock = services.clock
        self._changed = asyncio.Condition()
        self._live: dict[bytes, list[JobNote]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # records of the brain -------------------------------------------------------------------------------------------

    def keep(self, effects: Iterable[StewardEffect]) -> None:
        """Write records; doing so again changes nothing."""
        for effect in effects:
            match effect:
                case Note():
                    note = JobNote(effect.number, effect.at_ms, effect.kind, effect.text, effect.node, effect.done,
                                   effect.total)  # fmt: skip
                    self._log.put(f"note/{effect.job.hex()}/{effect.number:08d}", encode(note))
                    self._live.pop(effect.job, None)
                    self._wake()
                case KeepReceipt():
                    name = receipt_id(effect.lease, effect.claim_hash).hex()
                    self._log.put(f"receipt/{name}", encode(effect))
                    self._log.put(f"receipts/{effect.job.hex()}/{name}", b"")
                case JobEnded():
                    self._log.put(f"ended/{effect.job.hex()}", encode(effect))
                    self._wake()
                case _:
                    pass

    def closed(self, event: LedgerClosed) -> None:
        """A lease is settled: remember it for its receipts."""
        self._log.put(f"closed/{event.lease.hex()}", encode(event))

    def outcome(self, job: bytes) -> JobEnded | None:
        """How the job ended; None while it runs."""
        raw = self._log.get(f"ended/{job.hex()}")
        return None if raw is None else decode(JobEnded, raw, MAX_RECORD_BYTES)

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
        return None if raw is None else decode(KeepReceipt, raw, MAX_RECORD_BYTES)

    # signed papers --------------------------------------------------------------------------------------------------

    def keep_document(self, digest: bytes, document: Signed) -> None:
        """Keep a signed order or quote under its EIP-712 hash."""
        self._log.put(f"document/{digest.hex()}", encode(document))

    def document(self, digest: bytes) -> Signed | None:
        raw = self._log.get(f"document/{digest.hex()}")
        return None if raw is None else decode(Signed, raw)

    def keep_voucher(self, lease: bytes, cumulative_ucr: int, voucher: Signed) -> None:
        """Keep the latest voucher of a lease. On disk before it is sent: what we promised must outlive us."""
        self._log.put(f"voucher/{lease.hex()}", encode(voucher))
        self._log.put(f"voucher-sum/{lease.hex()}", str(cumulative_ucr).encode())

    def voucher(self, lease: bytes) -> Signed | None:
        raw = self._log.get(f"voucher/{lease.hex()}")
        return None if raw is None else decode(Signed, raw)

    def keep_settlement(self, lease: bytes, settlement: Signed) -> None:
        self._log.put(f"settlement/{lease.hex()}", encode(settlement))

    def settlement(self, lease: bytes) -> Signed | None:
        raw = self._log.get(f"settlement/{lease.hex()}")
        return None if raw is None else decode(Signed, raw)

    def keep_verdict(self, charge: Charge, verdict: Signed) -> None:
        self._log.put(f"verdict/{charge.lease.hex()}", encode(verdict))
        self._log.put(f"charge/{charge.lease.hex()}", encode(charge))

    def verdict(self, lease: bytes) -> tuple[Charge, Signed] | None:
        """The charge that the bank upheld against a lease, with our signature."""
        charge, verdict = self._log.get(f"charge/{lease.hex()}"), self._log.get(f"verdict/{lease.hex()}")
        if charge is None or verdict is None:
            return None
        return decode(Charge, charge, MAX_RECORD_BYTES), decode(Signed, verdict)

    # notes ----------------------------------------------------------------------------------------------------------

    def notes(self, job: bytes, after: int) -> list[JobNote]:
        """The kept notes of a job from the one after `after`."""
        first = f"note/{job.hex()}/"
        keys = [key for key in self._log.keys(first) if int(key.removeprefix(first)) > after]
        return [decode(JobNote, raw) for key in keys if (raw := self._log.get(key)) is not None]

    def show(self, job: bytes, note: JobNote) -> None:
        """Pass a passing note (progress, a log line) to whoever watches now; it is not kept."""
        live = self._live.setdefault(job, [])
        live.append(note)
        del live[:-MAX_LIVE_NOTES]
        self._wake()

    def _wake(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # replaying in a thread before anybody watches
        task = loop.create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def watch(self, job: bytes, after: int) -> AsyncIterator[JobNote]:
        """Notes as they come, kept ones first; ends after the job's outcome is known and all are told."""
        seen_live = 0
        while True:
            for note in self.notes(job, after):
                after = note.number
                seen_live = 0
                yield note
            live = self._live.get(job, [])
            for note in live[seen_live:]:
                yield note
            seen_live = len(live)
            if self.outcome(job) is not None and not self.notes(job, after):
                return
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), 1.0)
                except TimeoutError:
                    continue
