"""Making receipts: the papers of a lease, the claim, how it was checked and what was paid, put together and sealed when
somebody asks. A receipt asked for again later may say more (the settlement), never something else."""

from __future__ import annotations

import asyncio

import msgspec

from fallow.errors import FallowError, fail
from fallow.node.lanes.journal import (
    Answered,
    LaneReceiptNote,
    claim_leaves,
    evidence_of,
    find_claim,
    kept_witnesses,
    read_answers,
)
from fallow.node.lanes.leg import Leg
from fallow.node.services import Services
from fallow.node.steward.records import Records, receipt_id, refuted_receipt_id
from fallow.rules.steward.events import Charge, KeepReceipt, PeerClaimedBatch
from fallow.rules.steward.snapshot import Papers, papers_of, refuted_output
from fallow.rules.steward.state import Stage, State
from fallow.wire.claims import MerkleTree, output_hash
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Lease, Order, Signed, Voucher
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Evidence
from fallow.wire.receipts import LaneWork, NamedLaneWork, Receipt, TaskWork, Verdicts, seal

ReceiptWork = TaskWork | LaneWork


class Receipts:
    """Finds and seals the receipts of one steward."""

    def __init__(self, services: Services, records: Records, state: State) -> None:
        self._s, self._records, self._state = services, records, state

    async def sealed(self, prefix: bytes) -> bytes:
        """The receipt whose id begins with `prefix`, as a file. Raises UsageError E2002 unless exactly one does, or
        while the work it is about has not been claimed yet."""
        refuted: dict[bytes, bytes] = {refuted_receipt_id(lease): lease for lease in self._records.refuted()}
        found = self._records.find_receipts(prefix.hex())
        found += [identifier for identifier in refuted if identifier.startswith(prefix)]
        if len(found) != 1:
            raise fail("E2002", f"{len(found) or 'No'} receipts begin with r_{prefix.hex()}.")
        identifier = found[0]
        if identifier in refuted and (data := await self.rejected(refuted[identifier])) is not None:
            return data
        kept = self._records.receipt(identifier)
        receipt = await self._of_task(kept) if kept is not None else await self._of_lane(identifier)
        return seal(receipt, self._s.identity.account_secret)

    async def _of_task(self, kept: KeepReceipt) -> Receipt:
        if kept.spec is None or kept.output is None:
            raise fail("E2002", "This receipt is about a batch; ask for the receipts of its answers.")
        digest = output_hash(kept.output)
        parties, agreeing = {kept.terms.provider, kept.terms.requester}, dict[bytes, Evidence]()
        for one in kept.agreeing:
            if one.account not in parties:
                agreeing.setdefault(one.account, Evidence(one.lease, one.claim, digest, kept.units, 0, ()))
        evidence, sampled = tuple(agreeing.values())[:8], None
        if kept.check == "sampled" and evidence:
            evidence, sampled = (), evidence[0]
        verdict: Verdicts = "accepted" if evidence else "cleared"
        work = TaskWork(kept.spec, kept.output)
        receipt = await self._assemble(kept.lease, self._papers(kept.lease), kept.claim, work, 0, ())
        receipt = msgspec.structs.replace(
            receipt, verdict=verdict, evidence=evidence, sampled=sampled, notes=(kept.reason,)
        )  # fmt: skip
        return await self._with_draw(await self._with_standings(receipt), kept)

    def of_job(self, job: bytes) -> tuple[bytes, ...]:
        """The ids of a job's receipts, those of caught cheats last."""
        leases = [lease for lease in self._records.refuted() if self._job(lease) == job]
        return (*self._records.receipts(job), *map(refuted_receipt_id, leases))

    async def rejected(self, lease: bytes) -> bytes | None:
        """The receipt of a cheat: the claim that was refuted, who refuted it, and that nothing was paid for it."""
        found = self._records.verdict(lease)
        if found is None or not self._job(lease):
            return None
        charge, verdict = found
        papers, work = self._papers(lease), self._claimed_work(charge)
        if work is None:
            return None
        index, path = charge.accused.index, charge.accused.path
        words = ("Caught by re-execution.",)
        receipt = await self._assemble(lease, papers, charge.accused.claim, work, index, path)
        receipt = msgspec.structs.replace(
            receipt, verdict="rejected", evidence=charge.others, notes=words, charge=verdict
        )  # fmt: skip
        return seal(await self._with_standings(receipt), self._s.identity.account_secret)

    def _claimed_work(self, charge: Charge) -> ReceiptWork | None:
        """What the accused answered; None when it is no longer at hand."""
        if charge.accused.number:
            record = read_answers(self._s.log, Leg.log_name(charge.lease)).get(charge.accused.number)
            if record is None:
                return None
            return _lane_work(record, find_claim(self._s.log, charge.lease, record.number))
        found = self._state.seat_of(charge.lease)
        kept = self._records.papers(charge.lease) if found is None else None
        output = refuted_output(found[0], charge) if found is not None else kept.refuted if kept else None
        return TaskWork(charge.spec, output) if output is not None else None

    async def _of_lane(self, identifier: bytes) -> Receipt:
        note = decode(LaneReceiptNote, self._s.log.get(f"lane-receipt/{identifier.hex()}") or b"")
        leaves, record, event = await asyncio.to_thread(self._lane_batch, note)
        tree = MerkleTree(leaves)
        index = note.number - event.first
        work = _lane_work(record, event)
        verdict, words = self._verdict(note.lease, event)
        receipt = await self._assemble(note.lease, self._papers(note.lease), event.claim, work, index, tree.path(index))
        receipt = msgspec.structs.replace(receipt, verdict=verdict, notes=words)
        kept = self._records.receipt(receipt_id(note.lease, event.claim_hash))
        evidence = await asyncio.to_thread(self._witnesses, note)
        if verdict != "cleared" or kept is None or not evidence:
            return receipt
        receipt = msgspec.structs.replace(receipt, verdict="accepted", evidence=evidence, notes=(kept.reason,))
        return await self._with_draw(await self._with_standings(receipt), kept)

    def _witnesses(self, note: LaneReceiptNote) -> tuple[Evidence, ...]:
        """The signatures of all who gave the same when the answer was checked; none while one of them is missing."""
        found = list[Evidence | None]()
        for witness in kept_witnesses(self._s.log, note.lease, note.number):
            answered = read_answers(self._s.log, Leg.log_name(witness.lease))
            found.append(evidence_of(self._s.log, witness, self._papers(witness.lease).theirs, answered))
        return tuple(one for one in found if one is not None) if None not in found else ()

    def _verdict(self, lease: bytes, event: PeerClaimedBatch) -> tuple[Verdicts, tuple[str, ...]]:
        """What became of a lane's claim. Raises UsageError E2002 while it lies here and is not decided on yet."""
        found = self._state.seat_of(lease)
        if found is not None and event.claim_hash in found[1].claims:
            return "provisional", ("Not final yet: a check may still come.",)
        if self._records.receipt(receipt_id(lease, event.claim_hash)) is not None:
            return "cleared", ()
        # what is paid for is on record before a lease is settled
        if found is not None and found[1].stage is not Stage.CLOSED:
            raise fail("E2002", "This answer's claim is not decided on yet.", next_step="Ask again in a second.")
        return "voided", ("It came too late, was never checked, or its provider was caught: nothing is owed for it.",)

    def _lane_batch(self, note: LaneReceiptNote) -> tuple[list[bytes], Answered, PeerClaimedBatch]:
        event = find_claim(self._s.log, note.lease, note.number)
        if event is None:
            raise _unsigned()
        answered = read_answers(self._s.log, Leg.log_name(note.lease))
        leaves, record = claim_leaves(self._s.log, event, answered), answered.get(note.number)
        if leaves is None or record is None:
            raise fail("E2002", "Not all answers of this claim are at hand any more.")
        return leaves, record, event

    # the common part ------------------------------------------------------------------------------------------------

    def _papers(self, lease: bytes) -> Papers:
        found = self._state.seat_of(lease)
        papers = papers_of(*found) if found is not None else self._records.papers(lease)
        if papers is None:
            raise fail("E2002", "The lease of this receipt is not known.")
        return papers

    def _job(self, lease: bytes) -> bytes:
        """The job of a lease; b"" for a lease that is not known."""
        place = self._state.leases.get(lease)
        kept = self._records.papers(lease) if place is None else None
        return place[0] if place is not None else kept.job if kept is not None else b""

    async def _assemble(
        self, lease: bytes, papers: Papers, claim: Signed, work: ReceiptWork, index: int, path: tuple[bytes, ...]
    ) -> Receipt:
        """All but how the work was judged: "cleared" until the caller says more."""
        terms = decode(Lease, papers.ours.body)
        order, quote = self._records.document(terms.order), self._records.document(terms.quote)
        if order is None or quote is None:
            raise fail("E9001", "The papers of this lease are incomplete.")
        now_ms, owed = self._s.clock.now_ms(), papers.owed_ucr
        voucher = self._s.identity.sign(Voucher(lease, owed), self._s.bank_account) if owed else None
        return Receipt(
            made_ms=now_ms, job=papers.job, order=order, quote=quote, lease=papers.ours,
            provider_signature=papers.theirs, requester_certificate=self._s.identity.certificate(now_ms),
            provider_certificate=papers.certificate, claim=claim, work=work, index=index, path=path,
            policy=decode(Order, order.body).verify, verdict="cleared", units_final=papers.final_units, voucher=voucher,
            settlement=await self._settlement(lease),
        )  # fmt: skip

    async def _with_standings(self, receipt: Receipt) -> Receipt:
        """With the bank's word on the leases of those who checked."""
        others = (*receipt.evidence, *([receipt.sampled] if receipt.sampled is not None else []))
        leases = [hash_document(decode(Lease, one.lease.body), self._s.bank_account) for one in others]
        found = [await self._settlement(lease) for lease in leases]
        return msgspec.structs.replace(receipt, standings=tuple(one for one in found if one is not None))

    async def _with_draw(self, receipt: Receipt, kept: KeepReceipt) -> Receipt:
        """With the bank's word on the randomness by which these were drawn."""
        if not kept.seed or not receipt.standings:
            return receipt
        draw = await self._draw(kept.claim if kept.drawn_for is None else kept.drawn_for.claim)
        if draw is None or decode(AuditDraw, draw.body).seed != kept.seed:
            return receipt  # the bank had refused to draw, and the steward went by the claim's own hash
        checkers = {decode(Lease, one.lease.body).provider for one in (*receipt.evidence, receipt.sampled) if one}
        outside = tuple(one for one in kept.outside if one in checkers.union(kept.undrawn, (kept.terms.provider,)))
        return msgspec.structs.replace(
            receipt, draw=draw, drawn_for=kept.drawn_for, undrawn=kept.undrawn, drawn=kept.drawn, outside=outside
        )  # fmt: skip

    async def _draw(self, claim: Signed) -> Signed | None:
        """What the bank drew for a claim; it gives the same answer for ever, which is kept in case it does not last as
        long."""
        digest = hash_document(decode(ClaimRoot, claim.body), self._s.bank_account)
        if (kept := self._records.draw(digest)) is not None:
            return kept
        try:
            drawn = await self._s.settlement().draw(claim)
        except FallowError:
            return None
        self._records.keep_draw(digest, drawn.signed)
        return drawn.signed

    async def _settlement(self, lease: bytes) -> Signed | None:
        """The bank's latest word, or the last one that we have when it does not answer."""
        try:
            standing = await self._s.settlement().standing(lease)
            charge = standing.charge if standing is not None else None
            if charge is not None and charge.due_ms <= self._s.clock.now_ms():
                await self._s.settlement().close(lease)  # time has decided it: whatever is asked of the lease says so
                standing = await self._s.settlement().standing(lease)
        except FallowError:
            return self._records.settlement(lease)
        if standing is None:
            return None
        self._records.keep_settlement(lease, standing.signed)
        return standing.signed


def _lane_work(record: Answered, claim: PeerClaimedBatch | None) -> LaneWork:
    if claim is None or claim.setting is None:
        return LaneWork(record.number, record.params, record.seed, record.value, record.units)
    return NamedLaneWork(
        record.number, record.params, record.seed, record.value, record.units, setting=claim.setting
    )  # fmt: skip


def _unsigned() -> FallowError:
    return fail("E2002", "The provider has not signed for this answer yet.", next_step="Ask again in a second.")
