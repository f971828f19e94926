"""A lease's money: reserved at opening, posted in parts by vouchers, the rest voided at closing.

Each function changes the draft and returns None, or returns why not (the draft is then thrown away)."""

from __future__ import annotations

import msgspec

from fallow.rules.escrow.books import Draft, escrow_of, saturate
from fallow.rules.escrow.facts import ClaimFacts, LeaseFacts, VoucherFacts
from fallow.rules.escrow.rows import (
    MAX_PENDING,
    STAKERS,
    AccountRow,
    Book,
    DrawRow,
    EscrowRow,
    Pending,
    Place,
    PoolTerms,
    StakersRow,
    account_key,
    draw_key,
    unpack,
)
from fallow.rules.trust import draw_by_stake
from fallow.wire.ledger import Drawn, Refusal

FIRST_MS = 1
"""`closed_ms` of 0 means open, so a lease closed at the very beginning of time was closed a moment later."""


def open_escrow(draft: Draft, facts: LeaseFacts, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Lock `cap_ucr` of the requester and `stake_ucr` of the provider."""
    lease = facts.lease
    if caller not in (lease.requester, lease.provider):
        return Refusal.NOT_A_PARTY
    # A row stays after closing, so replaying a settled lease does not open (and pay) it a second time.
    if escrow_of(draft, facts.operation) is not None:
        return None
    # Hiring oneself would earn a reputation for nothing.
    if lease.requester == lease.provider:
        return Refusal.SAME_ACCOUNT
    # Money must not be locked for a lease that is over, or for so long that it is lost in practice.
    if not (lease.starts_ms < lease.ends_ms and now_ms < lease.ends_ms <= now_ms + terms.longest_lease_ms):
        return Refusal.BAD_TIMES
    if facts.expires_ms <= now_ms:
        return Refusal.WRONG_CERTIFICATE
    requester = draft.find(AccountRow, account_key(lease.requester))
    provider = draft.find(AccountRow, account_key(lease.provider))
    if requester is None or provider is None:
        return Refusal.NO_SUCH_ACCOUNT
    # Without these two a promise to pay, or to lose, would stand on nothing.
    if requester.available_ucr < lease.cap_ucr:
        return Refusal.BALANCE_TOO_SMALL
    if provider.stake_ucr < lease.stake_ucr:
        return Refusal.STAKE_TOO_SMALL
    _reserve(draft, facts, now_ms)
    return None


def _reserve(draft: Draft, facts: LeaseFacts, now_ms: int) -> None:
    lease, lease_id = facts.lease, facts.operation
    draft.put(
        EscrowRow(
            lease=lease_id,
            requester=lease.requester,
            provider=lease.provider,
            cap_ucr=lease.cap_ucr,
            stake_ucr=lease.stake_ucr,
            ends_ms=lease.ends_ms,
            opened_ms=now_ms,
        )
    )
    draft.move(Book(Place.AVAILABLE, lease.requester), Book(Place.ESCROW, lease_id), lease.cap_ucr)
    draft.move(Book(Place.STAKE, lease.provider), Book(Place.BOND, lease_id), lease.stake_ucr)


def redeem(draft: Draft, facts: VoucherFacts) -> Refusal | None:
    """Pay what the voucher adds. Whoever brings it, the same provider is paid, so the caller does not matter."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # Otherwise a provider could write its own vouchers.
    if facts.signer != escrow.requester:
        return Refusal.WRONG_SIGNER
    if facts.cumulative_ucr > escrow.cap_ucr:
        return Refusal.OVER_CAP
    # Cumulative amounts make a replayed or late voucher worth nothing: it adds nothing to what was paid.
    if facts.cumulative_ucr <= escrow.paid_ucr:
        return None
    if escrow.closed_ms:
        return Refusal.ESCROW_CLOSED
    paid = facts.cumulative_ucr - escrow.paid_ucr
    draft.put(msgspec.structs.replace(escrow, paid_ucr=facts.cumulative_ucr))
    draft.move(Book(Place.ESCROW, escrow.lease), Book(Place.AVAILABLE, escrow.provider), paid)
    provider = draft.account(escrow.provider)
    draft.put(msgspec.structs.replace(provider, earned_ucr=saturate(provider.earned_ucr + paid)))
    requester = draft.account(escrow.requester)
    draft.put(msgspec.structs.replace(requester, tied_ucr=max(requester.tied_ucr - paid, 0)))
    return None


def close_escrow(draft: Draft, lease: bytes, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Give the rest back and free the bond. Closing by the requester, also after the provider did, says that it has no
    complaint: a bond held for an audit is then freed at once."""
    escrow = escrow_of(draft, lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    if caller not in (escrow.requester, escrow.provider):
        return Refusal.NOT_A_PARTY
    if escrow.closed_ms:
        if caller == escrow.requester:
            _release_held(draft, escrow)
        return None
    # A requester who could close at once would do so before its provider can redeem the last voucher.
    if caller == escrow.requester and now_ms < escrow.ends_ms + terms.grace_ms:
        return Refusal.TOO_EARLY
    # A provider that sees the audit coming must not close, free its bond and hide it behind another lease.
    held_until_ms = escrow.audit_until_ms if caller == escrow.provider else 0
    if held_until_ms > now_ms and escrow.bond_ucr and len(draft.pending(escrow.provider)) >= MAX_PENDING:
        return Refusal.TOO_MANY_PENDING
    settle(draft, escrow, now_ms, held_until_ms)
    return None


def settle(draft: Draft, escrow: EscrowRow, now_ms: int, held_until_ms: int) -> None:
    """Close: what is locked goes back to the requester, the bond to free stake, or on hold until `held_until_ms`. When
    the queue of the provider is full the bond is freed; free stake can be slashed too."""
    closed = msgspec.structs.replace(
        escrow, closed_ms=max(now_ms, FIRST_MS), refunded_ucr=escrow.refunded_ucr + escrow.locked_ucr
    )
    draft.put(closed)
    draft.move(Book(Place.ESCROW, escrow.lease), Book(Place.AVAILABLE, escrow.requester), escrow.locked_ucr)
    entries = draft.pending(escrow.provider)
    hold = held_until_ms > now_ms and escrow.bond_ucr > 0 and len(entries) < MAX_PENDING
    target = Place.HELD if hold else Place.STAKE
    draft.move(Book(Place.BOND, escrow.lease), Book(target, escrow.provider), escrow.bond_ucr)
    if hold:
        draft.set_pending(escrow.provider, (*entries, Pending(escrow.lease, escrow.bond_ucr, held_until_ms)))


def _release_held(draft: Draft, escrow: EscrowRow) -> None:
    entries = draft.pending(escrow.provider)
    ours = [entry for entry in entries if entry.lease == escrow.lease]
    for entry in ours:
        draft.post(escrow.provider, entry)
    if ours:
        draft.set_pending(escrow.provider, (entry for entry in entries if entry.lease != escrow.lease))


def draw(draft: Draft, facts: ClaimFacts, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | Drawn:
    """-> the claim's seed, and the accounts that it draws from all that have stake now, but for the parties."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # A claim that its provider did not sign commits nobody.
    if facts.signer != escrow.provider:
        return Refusal.WRONG_SIGNER
    # A provider that could ask would sign many claims, look at their auditors and show the luckiest one.
    if caller != escrow.requester:
        return Refusal.NOT_A_PARTY
    known = draft.find(DrawRow, draw_key(facts.operation))
    # Asking again must not draw again, or a steward would try until its friends are the auditors.
    if known is not None:
        return Drawn(known.seed, known.accounts)
    register, parties = draft.find(StakersRow, STAKERS) or StakersRow(), (escrow.requester, escrow.provider)
    stakes = [
        (account, stake_ucr)
        for account, stake_ucr in unpack(register.stakes)
        if stake_ucr >= terms.min_witness_stake_ucr and account not in parties
    ]
    drawn = draw_by_stake(facts.seed, stakes, terms.drawn)
    draft.put(DrawRow(facts.operation, facts.lease, facts.seed, b"".join(drawn)))
    # Only while open: a requester must not keep a bond on hold forever by drawing after the end.
    if not escrow.closed_ms:
        draft.put(msgspec.structs.replace(escrow, audit_until_ms=now_ms + terms.hold_ms))
    return Drawn(facts.seed, tuple(drawn))
