"""What a lane leaves on disk: its answers in batches, since a write for each would be the slowest part of it. Whoever
needs to know that an answer is kept (its receipt is handed out) waits for the batch, and hurries it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import msgspec
from blake3 import blake3

from fallow.kinds.lane import LaneSide
from fallow.node.services import Services
from fallow.ports import EventLog
from fallow.rules.steward.events import PeerClaimedBatch
from fallow.units import Digest
from fallow.wire.claims import MerkleTree, lane_leaf, params_hash, setting_hash, value_hash
from fallow.wire.codec import encode, recall
from fallow.wire.documents import Signed, Word
from fallow.wire.ledger import Evidence

FLUSH_S = 0.05


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """What the steward remembers of an answered lane task; `params` and `value` are kept for receipts and checks. One
    that was `refused` was so for reasons of the provider's own."""

    number: int
    params: bytes
    seed: int
    value: bytes
    units: int
    receipt: bool
    refused: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.params) + len(self.value) + 200

    def leaf(self, setting: bytes) -> bytes:
        """Its leaf on a lane with this `setting_hash`; b"" for lanes of before there were settings."""
        return lane_leaf(self.number, params_hash(self.params), self.seed, value_hash(self.value), self.units, setting)

    def cancelled(self, side: LaneSide) -> bool:
        """Whether it was cut short because nobody wanted more; its value has been checked when it came."""
        return bool(self.value) and side.cut_short(self.value)


class Journal:
    """Writes the answers of one lease's lane to the EventLog stream `name`. `run` must be running."""

    def __init__(self, services: Services, name: str) -> None:
        self._s, self._name = services, name
        self._records: list[Answered] = []
        self._cells: dict[str, bytes] = {}
        self._then: list[Callable[[], None]] = []
        self._news, self._hurry = asyncio.Event(), asyncio.Event()
        self._over = False

    def add(self, record: Answered) -> None:
        """Keep an answer; on disk soon."""
        self._records.append(record)
        self._news.set()

    def when_saved(self, cells: dict[str, bytes], then: Callable[[], None]) -> None:
        """Write `cells` after everything that was added before, at once, and call `then`."""
        self._cells |= cells
        self._then.append(then)
        self._hurry.set()
        self._news.set()

    def end(self) -> None:
        """Let `run` return once everything is written."""
        self._over = True
        self._hurry.set()
        self._news.set()

    async def run(self) -> None:
        """Until `end`. Raises what the log raises when it cannot be written."""
        while not (self._over and not self._records and not self._then):
            await self._news.wait()
            self._news.clear()
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._hurry.wait()  # one write for all of the last 50 ms, unless somebody waits for it
            except TimeoutError:
                pass
            self._hurry.clear()
            await self._flush()

    async def _flush(self) -> None:
        records, self._records = self._records, []
        cells, self._cells = self._cells, {}
        then, self._then = self._then, []
        await asyncio.to_thread(self._write, records, cells)
        for call in then:
            call()

    def _write(self, records: list[Answered], cells: dict[str, bytes]) -> None:
        if records or cells:
            self._s.log.append(self._name, [msgspec.msgpack.encode(records)] if records else [], cells)


# who gave the same ----------------------------------------------------------------------------------------------------


class LaneWitness(msgspec.Struct, frozen=True, array_like=True):
    """One provider's answer to a task: where it stands in that provider's lane, and its hash."""

    lease: Word
    number: int
    digest: Word
    units: int

    @property
    def answer(self) -> tuple[bytes, int]:
        """What is compared: a lane task is metered by whoever answers it, so the meter is part of the answer."""
        return self.digest, self.units


def keep_witnesses(log: EventLog, lease: bytes, number: int, witnesses: Sequence[LaneWitness]) -> None:
    """Keep who gave the same as an answer that was checked, for its receipt."""
    log.put(_witnesses(lease, number), msgspec.msgpack.encode(witnesses))


def kept_witnesses(log: EventLog, lease: bytes, number: int) -> tuple[LaneWitness, ...]:
    """Those of an answer; none where it was not checked."""
    raw = log.get(_witnesses(lease, number))
    return msgspec.msgpack.decode(raw, type=tuple[LaneWitness, ...]) if raw is not None else ()


def _witnesses(lease: bytes, number: int) -> str:
    return f"lane-witness/{lease.hex()}/{number:020d}"


def evidence_of(
    log: EventLog, witness: LaneWitness, signed: Signed, answered: Mapping[int, Answered]
) -> Evidence | None:
    """The provider's own signature under its answer; `signed` is its lease, signed by it. None before it has signed for
    the answer, or when what it signed for with it is no longer at hand."""
    claim = find_claim(log, witness.lease, witness.number)
    leaves = claim_leaves(log, claim, answered) if claim is not None else None
    if claim is None or leaves is None:
        return None
    index = witness.number - claim.first
    path = MerkleTree(leaves).path(index)
    return Evidence(signed, claim.claim, witness.digest, witness.units, index, path, witness.number)


# claims over lane answers, kept as the brain hears of them ------------------------------------------------------------


def _claims(lease: bytes) -> str:
    return f"lane-claim/{lease.hex()}/"


def keep_claim(log: EventLog, event: PeerClaimedBatch) -> None:
    """Keep a claim for receipts and evidence."""
    log.put(f"{_claims(event.lease)}{event.first:020d}", encode(event))


def keep_leaves(log: EventLog, lease: bytes, first: int, leaves: tuple[bytes, ...]) -> None:
    """Keep the leaves of a claim that is also over answers which never arrived."""
    log.put(f"lane-leaves/{lease.hex()}/{first:020d}", b"".join(leaves))


def claim_leaves(log: EventLog, claim: PeerClaimedBatch, answered: Mapping[int, Answered]) -> list[bytes] | None:
    """All leaves of a kept claim; None when not all of its answers are at hand any more."""
    kept = log.get(f"lane-leaves/{claim.lease.hex()}/{claim.first:020d}")
    if kept is not None:
        return [kept[at : at + 32] for at in range(0, len(kept), 32)]
    records = [answered.get(number) for number in range(claim.first, claim.first + claim.count)]
    setting = setting_hash(claim.setting) if claim.setting is not None else b""
    leaves = [record.leaf(setting) for record in records if record is not None]
    return leaves if len(leaves) == claim.count else None


def find_claim(log: EventLog, lease: bytes, number: int) -> PeerClaimedBatch | None:
    """The claim over lane answer `number` of a lease."""
    keys = log.keys(_claims(lease))
    at = bisect_right(keys, f"{_claims(lease)}{number:020d}") - 1
    claim = recall(PeerClaimedBatch, log.get(keys[at]) or b"") if at >= 0 else None
    return claim if claim is not None and number < claim.first + claim.count else None


def claimed_to(log: EventLog, lease: bytes) -> int:
    """The first lane number that no claim of the lease was over."""
    keys = log.keys(_claims(lease))
    last = recall(PeerClaimedBatch, log.get(keys[-1]) or b"") if keys else None
    return last.first + last.count if last is not None else 0


def read_answers(log: EventLog, stream: str) -> dict[int, Answered]:
    """Everything that a journal of that name holds."""
    found: dict[int, Answered] = {}
    for _, raw in log.read(stream):
        found.update({one.number: one for one in msgspec.msgpack.decode(raw, type=list[Answered])})
    return found


def lane_receipt_id(lease: bytes, number: int) -> Digest:
    """The id of the receipt of one lane task, known before its batch is claimed."""
    return Digest(blake3(b"fallow lane receipt" + lease + number.to_bytes(8, "big")).digest())


class LaneReceiptNote(msgspec.Struct, frozen=True, array_like=True):
    """What a lane receipt's id stands for."""

    job: Word
    lease: Word
    number: int
