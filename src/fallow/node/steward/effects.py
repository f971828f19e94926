"""How the steward's effects are carried out: one call to a directory, a provider, the bank or the blob store each, and
the event that tells the brain what came of it. Connection trouble is raised (UnavailableError) and tried again by the
caller; a refusal becomes an event. Everything a peer answers is checked here before the brain hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import msgspec
import structlog

from fallow.errors import FallowError, UnavailableError, fail
from fallow.node.directory import find_offers
from fallow.node.lanes.journal import find_claim
from fallow.node.own_machine import OwnMachine
from fallow.node.services import Services
from fallow.node.steward.blobs import job_owner
from fallow.node.steward.records import Records
from fallow.ports import LeaseStanding
from fallow.rules.jobs import LEFT
from fallow.rules.steward import events as t
from fallow.units import BlobId
from fallow.wire import messages
from fallow.wire.codec import decode
from fallow.wire.documents import Lease, Quote, Settlement, Signed, Verdict, Voucher
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import OpenEscrow, Slash
from fallow.wire.refusals import SettlementRefused

log = structlog.get_logger()

PEER_S = 10.0
CLOSE_S = 15.0
MAX_OFFERS = 1000
STAKE_GOOD_MS, CONFIRMED_AT_ONCE = 60_000, 16
"""How long what the bank says of an account's stake is good, and how many accounts it is asked about at once."""
KEEP_TRIES, KEEP_PAUSE_S = 3, 0.5
KEEP_S = 600.0
MAX_SOURCES = 64


class Performer:
    """Carries out effects of the types that are one exchange each."""

    def __init__(self, services: Services, records: Records) -> None:
        self._s = services
        self._records = records
        self._own = OwnMachine(services)
        self._staked_until_ms: dict[bytes, int] = {}

    def _now(self) -> int:
        return self._s.clock.now_ms()

    async def run(self, effect: t.StewardEffect) -> t.StewardEvent | None:
        """-> the answering event, or None for effects without one. Raises UnavailableError to be tried again."""
        match effect:
            case t.FindOffers():
                return await self._find(effect)
            case t.AskQuote():
                return await self._quote(effect)
            case t.ProposeLease():
                return await self._lease(effect)
            case t.FundEscrow():
                return await self._escrow(effect)
            case t.Assign():
                return await self._assign(effect)
            case t.Cancel(lease, peer, task):
                await self._s.rpc.call(peer, messages.CancelTask(lease, task), PEER_S)
                return None
            case t.Prefetch(lease, peer, part):
                await self._s.rpc.call(peer, messages.PrefetchBlobs(lease, (part,), (self._s.rpc.address(),)), PEER_S)
                return None
            case t.KeepBlob():
                return await self._keep(effect)
            case t.LetGo(job, blob):
                await asyncio.to_thread(self._s.blobs.unpin, BlobId(blob), job_owner(job))
                return None
            case t.Draw():
                return await self._draw(effect)
            case t.ReplayTask():
                return await self._replay(effect)
            case t.Pay():
                return await self._pay(effect)
            case t.Charge():
                return await self._charge(effect)
            case t.EndLease():
                return await self._close(effect)
            case _:
                raise fail("E9001", f"no way to carry out {type(effect).__name__}")

    # market ---------------------------------------------------------------------------------------------------------

    async def _find(self, effect: t.FindOffers) -> t.StewardEvent:
        """Offers that fit, else whatever there is, so that people are told what it lacks."""
        wanted = messages.SearchOffers(
            effect.kind, bank=self._s.bank_account, ram_bytes=effect.ram_bytes, disk_bytes=effect.disk_bytes,
            max_price_ucr=effect.max_price_ucr,
        )  # fmt: skip
        for search in (wanted, messages.SearchOffers(effect.kind)):
            if offers := await find_offers(self._s.rpc, self._s.directories, search, self._now()):
                break
        offers = await self._backed(offers[:MAX_OFFERS])
        return t.OffersGathered(self._now(), effect.job, tuple(offers))

    async def _backed(self, offers: list[messages.Offer]) -> list[messages.Offer]:
        """Without those that have nothing at stake, where others have: offers cost nothing to invent, and each that is
        asked in vain costs time. What the bank does not say counts for them."""
        now_ms, slots, bare = self._now(), asyncio.Semaphore(CONFIRMED_AT_ONCE), set[bytes]()
        self._staked_until_ms = {one: until_ms for one, until_ms in self._staked_until_ms.items() if until_ms > now_ms}

        async def confirm(account: bytes) -> None:
            with suppress(FallowError):
                async with slots:
                    balance = await self._s.settlement().balance(account)
                if balance.staked_ucr > balance.unbonding_ucr:
                    self._staked_until_ms[account] = now_ms + STAKE_GOOD_MS
                else:
                    bare.add(account)

        async with asyncio.TaskGroup() as group:
            for account in sorted({offer.account for offer in offers} - self._staked_until_ms.keys()):
                group.create_task(confirm(account))
        backed = [offer for offer in offers if offer.account not in bare]
        return backed if any(offer.account in self._staked_until_ms for offer in backed) else offers

    async def _quote(self, effect: t.AskQuote) -> t.StewardEvent:
        order = self._s.identity.sign(effect.order, self._s.bank_account)
        certificate = self._s.identity.certificate(self._now())
        request = messages.RequestQuote(order, certificate, self._s.rpc.address())
        declined = t.PeerDeclined(self._now(), effect.job, effect.seat, ())
        try:
            answer = await self._s.rpc.call(effect.peer, request, PEER_S)
            if isinstance(answer, messages.Declined):
                return msgspec.structs.replace(declined, shortfalls=answer.shortfalls)
            if not isinstance(answer, messages.Quoted):
                return declined
            quote = self._check_quote(effect, answer.quote)
        except FallowError as error:
            # unreachable, unwilling, or with a quote that is not its own or not for this order: no quote
            log.info("no quote", peer=effect.peer.node.hex()[:12], code=error.code, what=error.what)
            return declined
        bank = self._s.bank_account
        papers: dict[bytes, Signed] = {
            hash_document(effect.order, bank): order,
            hash_document(quote, bank): answer.quote,
        }
        await asyncio.to_thread(self._records.keep_documents, papers)
        return t.PeerQuoted(self._now(), effect.job, effect.seat, quote, answer.quote)

    def _check_quote(self, effect: t.AskQuote, signed: Signed) -> Quote:
        """Signed by the account that it names (which the brain compares with the offer's), for this order, by this
        node. Raises PeerFault."""
        claimed = decode(Quote, signed.body)
        quote = open_signed(signed, Quote, self._s.bank_account, claimed.provider)
        if quote.order != hash_document(effect.order, self._s.bank_account) or quote.node != effect.peer.node:
            raise fail("E1101", "a quote for another order")
        return quote

    async def _lease(self, effect: t.ProposeLease) -> t.StewardEvent:
        bank = self._s.bank_account
        ours = self._s.identity.sign(effect.terms, bank)
        declined = t.PeerDeclined(self._now(), effect.job, effect.seat, ())
        try:
            answer = await self._s.rpc.call(effect.peer, messages.SignLease(ours), PEER_S)
            if isinstance(answer, messages.Declined):
                return msgspec.structs.replace(declined, shortfalls=answer.shortfalls)
            if not isinstance(answer, messages.LeaseSigned) or answer.lease.body != ours.body:
                return declined  # the same bytes or nothing: a peer may not sign other terms
            open_signed(answer.lease, Lease, bank, effect.terms.provider)
        except FallowError as error:
            log.info("no lease", peer=effect.peer.node.hex()[:12], code=error.code, what=error.what)
            return declined
        lease = hash_document(effect.terms, bank)
        return t.PeerSigned(self._now(), effect.job, effect.seat, lease, effect.terms, ours, answer.lease)

    # tasks ----------------------------------------------------------------------------------------------------------

    async def _assign(self, effect: t.Assign) -> t.StewardEvent | None:
        sources = (self._s.rpc.address(), *effect.sources)[:MAX_SOURCES]
        try:
            await self._s.rpc.call(effect.peer, messages.AssignTask(effect.lease, effect.spec, sources), PEER_S)
        except UnavailableError:
            raise
        except FallowError as error:
            if error.code in LEFT:
                return t.PeerLeaving(self._now(), effect.lease, 0, error.what[:200])
            what = error.what[:4000]
            return t.PeerFailed(self._now(), effect.lease, 0, effect.task, error.code, what, retryable=True)
        return None

    async def _keep(self, effect: t.KeepBlob) -> t.StewardEvent:
        blob, limit = BlobId(effect.part.blob), effect.part.size_bytes
        for attempt in range(KEEP_TRIES):
            try:
                # no more than the part is said to have: a hash with a larger blob behind it must not fill our disk
                found = await self._s.fetcher.fetch(
                    blob, self._others(effect.sources), limit, owner=job_owner(effect.job), timeout_s=KEEP_S
                )
                if found == limit:
                    return t.BlobKept(self._now(), effect.job, effect.part.blob)
                break  # its size was a lie, and stays one
            except FallowError as error:
                if error.code == "E1603":
                    raise  # our own disk is full: nobody else's fault, and it may get better
                log.info("blob not kept", blob=blob.hex()[:12], code=error.code, what=error.what)
            await self._s.clock.sleep(KEEP_PAUSE_S * (attempt + 1))
        return t.BlobMissing(self._now(), effect.job, effect.part.blob)

    async def _replay(self, effect: t.ReplayTask) -> t.StewardEvent:
        now, owner = self._now, job_owner(effect.job)
        try:
            answer = await self._own.answer(effect.spec, effect.numerics, effect.sources, owner)
        except FallowError as error:
            log.info("not done again here", lease=effect.lease.hex()[:12], code=error.code, what=error.what)
            return t.NotReplayed(now(), effect.lease, effect.claim_hash, error.what[:1000])
        return t.Replayed(now(), effect.lease, effect.claim_hash, answer)

    def _others(self, sources: t.Sources) -> tuple[messages.NodeAddress, ...]:
        return tuple(source for source in sources if source.node != self._s.identity.node)

    # money ----------------------------------------------------------------------------------------------------------

    async def _escrow(self, effect: t.FundEscrow) -> t.StewardEvent:
        certificate = self._s.identity.certificate(self._now())
        request = OpenEscrow(effect.ours, effect.theirs, certificate, effect.provider_certificate)
        try:
            await self._s.settlement().open(request)
        except SettlementRefused as no:
            return t.LedgerRefusedEscrow(self._now(), effect.lease, no.refusal, no.detail)
        return t.LedgerOpened(self._now(), effect.lease)

    async def _draw(self, effect: t.Draw) -> t.StewardEvent:
        try:
            found = await self._s.settlement().draw(effect.claim)
        except SettlementRefused as no:
            return t.LedgerRefusedDraw(self._now(), effect.claim_hash, no.refusal)
        return t.AuditorsDrawn(self._now(), effect.claim_hash, found.said.seed, found.drawn)

    def _voucher(self, lease: bytes, cumulative_ucr: int) -> Signed:
        return self._s.identity.sign(Voucher(lease, cumulative_ucr), self._s.bank_account)

    async def _pay(self, effect: t.Pay) -> t.StewardEvent:
        voucher = self._voucher(effect.lease, effect.cumulative_ucr)
        await self._s.rpc.call(effect.peer, messages.PayVoucher(voucher), PEER_S)
        return t.PeerTookVoucher(self._now(), effect.lease, effect.cumulative_ucr)

    async def _charge(self, effect: t.Charge) -> t.StewardEvent:
        accepted = effect.others[0].output
        verdict = Verdict(effect.lease, effect.task, effect.accused.output, accepted, effect.slash_ucr)
        signed = self._s.identity.sign(verdict, self._s.bank_account)
        orders = [self._records.order(one.lease) for one in (effect.accused, *effect.others)]
        claim = find_claim(self._s.log, effect.lease, effect.accused.number) if effect.accused.number else None
        request = Slash(
            signed, effect.spec, effect.accused, effect.others, tuple(order for order in orders if order is not None),
            claim.setting if claim is not None else None,
        )  # fmt: skip
        try:
            await self._s.settlement().draw(effect.accused.claim)  # an auditor's own claim may have none yet
            await self._s.settlement().charge(request)
        except SettlementRefused as no:
            return t.LedgerRefusedCharge(self._now(), effect.lease, effect.task, no.refusal)
        taken, found = 0, await self._looked_up(effect.lease)
        if found is not None:
            taken = found.said.slashed_ucr + (found.charge.locked_ucr if found.charge is not None else 0)
        self._records.keep_verdict(effect, signed)
        return t.LedgerSlashed(self._now(), effect.lease, effect.task, taken)

    async def _looked_up(self, lease: bytes) -> LeaseStanding | None:
        found = await self._s.settlement().standing(lease)
        if found is not None:
            self._records.keep_settlement(lease, found.signed)
        return found

    async def _standing(self, lease: bytes) -> Settlement | None:
        found = await self._looked_up(lease)
        return found.said if found is not None else None

    async def _close(self, effect: t.EndLease) -> t.StewardEvent:
        """Voucher to the bank first: what is owed is paid even if the provider never comes back. Then the provider is
        asked to close; one that does not is closed without once the lease has ended. UnavailableError E1801 until
        then."""
        bank, settled = self._s.settlement(), await self._standing(effect.lease)
        if settled is None and self._now() < effect.ends_ms:
            raise fail("E1801", f"The bank does not know lease l_{effect.lease.hex()[:12]}, which may still be opened.")
        if settled is None:
            return t.LedgerClosed(self._now(), effect.lease, 0, 0, 0)  # it was never opened, and cannot be any more
        if not settled.closed_ms:
            if effect.cumulative_ucr > settled.paid_ucr:
                await _if_allowed(bank.redeem(self._voucher(effect.lease, effect.cumulative_ucr)))
            await self._ask_to_close(effect)
            settled = await self._standing(effect.lease) or settled
        charged = self._records.verdict(effect.lease) is not None  # one that nobody answered in time is carried out
        if not settled.closed_ms and (charged or self._now() >= effect.ends_ms):
            await _if_allowed(bank.close(effect.lease))
            settled = await self._standing(effect.lease) or settled
        if not settled.closed_ms:
            raise fail("E1801", f"The provider of lease l_{effect.lease.hex()[:12]} has not closed its escrow yet.")
        # we have no complaint: after an audit the bank holds the provider's bond until we say so
        await _if_allowed(bank.close(effect.lease))
        return t.LedgerClosed(
            self._now(), effect.lease, settled.paid_ucr, settled.refunded_ucr, settled.slashed_ucr
        )  # fmt: skip

    async def _ask_to_close(self, effect: t.EndLease) -> None:
        try:
            await self._s.rpc.call(effect.peer, messages.CloseLease(effect.lease), CLOSE_S)
        except FallowError as error:
            log.info("lease not closed by its provider", lease=effect.lease.hex()[:12], what=error.what)


async def _if_allowed(work: Awaitable[None]) -> None:
    """Have the bank do it, unless its rules say no: what came of it is looked up afterwards."""
    try:
        await work
    except SettlementRefused as no:
        log.info("the bank refused", reason=no.refusal.value, what=no.what)
