"""How the simulated steward's effects are carried out: one flow of calls for each, and the event that tells the brain
what came of it. What `node/steward/effects.py` does on a real network."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import msgspec

from fallow.errors import FallowError
from fallow.rules.jobs import LEFT
from fallow.rules.steward import events as t
from fallow.sim.crash import Ask
from fallow.sim.services import open_once
from fallow.wire.documents import Lease, Quote, Settlement, Signed, Verdict, Voucher
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import (
    CloseEscrow,
    DrawAuditors,
    Drawn,
    GetSettlement,
    LedgerDone,
    LedgerRefused,
    OpenEscrow,
    Redeem,
    SettlementOf,
    Slash,
)
from fallow.wire.messages import (
    AssignTask,
    BlobFound,
    BlobStat,
    CancelTask,
    CloseLease,
    Declined,
    Failure,
    LeaseSigned,
    Message,
    Offer,
    OffersFound,
    PayVoucher,
    PrefetchBlobs,
    Quoted,
    RequestQuote,
    SearchOffers,
    SignLease,
)

if TYPE_CHECKING:
    from fallow.sim.steward import Steward

KEEP_TRIES = 3
Answer = Generator[Ask | int, Message | None, t.StewardEvent | None]
AGAIN = t.ClockTicked(0)
"""What a flow gives back when it has to be tried again. The times in all these events are filled in by the steward."""


class Runner:
    """Carries out effects that are one exchange each."""

    def __init__(self, steward: Steward) -> None:
        self._me = steward

    def run(self, effect: t.StewardEffect) -> Answer:
        """The flow that carries an effect out: it gives the answering event, None, or AGAIN."""
        match effect:
            case t.FindOffers():
                return (yield from self._find(effect))
            case t.AskQuote():
                return (yield from self._quote(effect))
            case t.ProposeLease():
                return (yield from self._propose(effect))
            case t.OpenEscrow():
                return (yield from self._open(effect))
            case t.Assign():
                return (yield from self._assign(effect))
            case t.CancelTask(lease, peer, task):
                yield Ask(peer.node, CancelTask(lease, task))
                return None
            case t.Prefetch(lease, peer, part):
                yield Ask(peer.node, PrefetchBlobs(lease, (part,), (self._me.person.address,)))
                return None
            case t.KeepBlob():
                return (yield from self._keep(effect))
            case t.LetGo(_, blob):
                self._me.blobs.discard(blob)  # at once, though a real store only drops it when it needs the room
                return None
            case t.Draw():
                return (yield from self._draw(effect))
            case t.Pay():
                answer = yield Ask(effect.peer.node, PayVoucher(self._voucher(effect.lease, effect.cumulative_ucr)))
                return AGAIN if answer is None else t.PeerPaid(0, effect.lease, effect.cumulative_ucr)
            case t.Charge():
                return (yield from self._charge(effect))
            case t.CloseLease():
                return (yield from self._close(effect))
            case _:
                raise AssertionError(f"no way to carry out {type(effect).__name__}")

    def _find(self, effect: t.FindOffers) -> Answer:
        found: dict[bytes, Offer] = {}
        heard = False
        for directory in self._me.directories:
            answer = yield Ask(directory, SearchOffers(effect.kind), 1_500)
            if isinstance(answer, OffersFound):
                heard = True
                for signed in answer.offers:
                    offer = open_once(signed, self._me.now_ms)
                    if offer is not None:
                        found.setdefault(offer.address.node, offer)
        return t.OffersSeen(0, effect.job, tuple(found.values())) if heard else AGAIN

    def _quote(self, effect: t.AskQuote) -> Answer:
        bank = self._me.bank_account
        request = RequestQuote(self._me.person.sign(effect.order), self._me.person.certificate, self._me.person.address)
        answer = yield Ask(effect.peer.node, request)
        declined = t.PeerDeclined(0, effect.job, effect.seat, answer.shortfalls if isinstance(answer, Declined) else ())
        if not isinstance(answer, Quoted):
            return declined
        try:
            claimed = msgspec.msgpack.decode(answer.quote.body, type=Quote)
            quote = open_signed(answer.quote, Quote, bank, claimed.provider)
        except (FallowError, msgspec.DecodeError):
            return declined
        if quote.order != hash_document(effect.order, bank) or quote.node != effect.peer.node:
            return declined
        return t.PeerQuoted(0, effect.job, effect.seat, quote, answer.quote)

    def _propose(self, effect: t.ProposeLease) -> Answer:
        bank, ours = self._me.bank_account, self._me.person.sign(effect.terms)
        lease = bytes(hash_document(effect.terms, bank))
        self._me.referee.proposing(effect.job, lease, effect.terms)
        answer = yield Ask(effect.peer.node, SignLease(ours))
        declined = t.PeerDeclined(0, effect.job, effect.seat, answer.shortfalls if isinstance(answer, Declined) else ())
        if not isinstance(answer, LeaseSigned) or answer.lease.body != ours.body:
            return declined
        try:
            open_signed(answer.lease, Lease, bank, effect.terms.provider)
        except FallowError:
            return declined
        return t.PeerSigned(0, effect.job, effect.seat, lease, effect.terms, ours, answer.lease)

    def _open(self, effect: t.OpenEscrow) -> Answer:
        request = OpenEscrow(effect.ours, effect.theirs, self._me.person.certificate, effect.provider_certificate)
        answer = yield Ask(self._me.bank, request)
        if isinstance(answer, LedgerDone):
            return t.LedgerOpened(0, effect.lease)
        if isinstance(answer, LedgerRefused):
            return t.LedgerRefusedEscrow(0, effect.lease, answer.reason)
        return AGAIN

    def _assign(self, effect: t.Assign) -> Answer:
        request = AssignTask(effect.lease, effect.spec, (self._me.person.address, *effect.sources))
        self._me.referee.assigning(effect.task, effect.spec)
        answer = yield Ask(effect.peer.node, request)
        if answer is None:
            return AGAIN
        if isinstance(answer, Failure):
            if answer.code in LEFT:
                return t.PeerLeaving(0, effect.lease, 0, answer.what[:200])
            return t.PeerFailed(0, effect.lease, 0, effect.task, answer.code, answer.what, retryable=True)
        return None

    def _keep(self, effect: t.KeepBlob) -> Answer:
        blob = effect.part.blob
        for attempt in range(KEEP_TRIES):
            for source in effect.sources:
                if blob not in self._me.blobs and source.node != self._me.node:
                    answer = yield Ask(source.node, BlobStat(blob), 2_000)
                    if isinstance(answer, BlobFound) and answer.size_bytes is not None:
                        self._me.blobs.add(blob)
            if blob in self._me.blobs:
                return t.BlobKept(0, effect.job, blob)
            yield 500 * (attempt + 1)
        return t.BlobMissing(0, effect.job, blob)

    # money ------------------------------------------------------------------------------------------------------------

    def _draw(self, effect: t.Draw) -> Answer:
        answer = yield Ask(self._me.bank, DrawAuditors(effect.claim))
        if isinstance(answer, Drawn):
            return t.AuditorsDrawn(0, effect.claim_hash, answer.seed)
        return AGAIN if not isinstance(answer, LedgerRefused) else t.LedgerRefusedDraw(
            0, effect.claim_hash, answer.reason
        )  # fmt: skip

    def _voucher(self, lease: bytes, cumulative_ucr: int) -> Signed:
        return self._me.person.sign(Voucher(lease, cumulative_ucr))

    def _charge(self, effect: t.Charge) -> Answer:
        accepted = effect.others[0].output
        verdict = Verdict(effect.lease, effect.task, effect.accused.output, accepted, effect.slash_ucr)
        answer = yield Ask(
            self._me.bank, Slash(self._me.person.sign(verdict), effect.spec, effect.accused, effect.others)
        )
        if isinstance(answer, LedgerRefused):
            return t.LedgerRefusedCharge(0, effect.lease, effect.task, answer.reason)
        settled = (yield from self._settlement(effect.lease)) if isinstance(answer, LedgerDone) else None
        return AGAIN if settled is None else t.LedgerSlashed(0, effect.lease, effect.task, settled.slashed_ucr)

    def _settlement(self, lease: bytes) -> Generator[Ask | int, Message | None, Settlement | None]:
        answer = yield Ask(self._me.bank, GetSettlement(lease))
        if isinstance(answer, SettlementOf) and answer.settlement is not None:
            return open_signed(answer.settlement, Settlement, self._me.bank_account, self._me.bank_account)
        return None

    def _close(self, effect: t.CloseLease) -> Answer:
        settled = yield from self._settlement(effect.lease)
        if settled is not None and not settled.closed_ms:
            if effect.cumulative_ucr > settled.paid_ucr:
                # Before the provider may close: one that never got its last voucher would close unpaid.
                answer = yield Ask(self._me.bank, Redeem(self._voucher(effect.lease, effect.cumulative_ucr)))
                if answer is None:
                    return AGAIN
            heard = yield Ask(effect.peer.node, CloseLease(effect.lease))
            # Whatever it answered: one that says yes and does not close must not keep the money for ever.
            if self._me.now_ms >= effect.ends_ms and not (heard and self._me.trusting):
                yield Ask(self._me.bank, CloseEscrow(effect.lease))
            settled = yield from self._settlement(effect.lease)
        if settled is None or not settled.closed_ms:
            return AGAIN
        return t.LedgerClosed(0, effect.lease, settled.paid_ucr, settled.refunded_ucr, settled.slashed_ucr)
