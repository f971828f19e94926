"""The provider's money rules: no work before the escrow is open, bounded work ahead of payment, vouchers redeemed in
time, escrows closed when nothing more can come.

Defends against: requesters that never open the escrow, never pay, pay less than before, or close late; vouchers for
more than the escrow holds. Does not defend against a requester that refuses to pay for the last claims: that loss is
bounded by `Policy.credit_ucr` and one task.
"""

from __future__ import annotations

from fallow.rules.provider.events import (
    CheckEscrow,
    LedgerClosed,
    PeerPaid,
    ProviderEffect,
    RedeemVoucher,
    ReleaseEscrow,
    ReplyFailure,
    ReplyOk,
)
from fallow.rules.provider.state import LeaseEntry, ProviderState
from fallow.units import LeaseId, Ucr, cost_ucr

MAX_DEBTORS = 10_000
"""Accounts whose debts are remembered, the largest."""


def unpaid_ucr(lease: LeaseEntry) -> Ucr:
    """What was claimed and not yet promised in a voucher."""
    return Ucr(max(cost_ucr(lease.claimed_units, lease.document.price_ucr) - lease.voucher_ucr, 0))


def may_start(state: ProviderState, lease: LeaseEntry) -> bool:
    """Whether the next task may begin now."""
    return lease.phase == "open" and unpaid_ucr(lease) < max(state.terms.policy.credit_ucr, 1)


def covered(lease: LeaseEntry, units: int) -> bool:
    """Whether the cap pays for `units` more, beside all that was taken on already."""
    return cost_ucr(lease.promised_units + units, lease.document.price_ucr) <= lease.document.cap_ucr


def allowance_units(state: ProviderState, lease_id: bytes) -> int:
    """How many units a lane may answer before it must wait for money: 0 when the lease is not open, is used up, or owes
    too much."""
    lease = state.leases.get(LeaseId(lease_id))
    if lease is None or not may_start(state, lease):
        return 0
    price = lease.document.price_ucr
    if price == 0:
        return 1 << 40
    in_cap = lease.document.cap_ucr * 1_000 // price - lease.promised_units
    in_credit = (state.terms.policy.credit_ucr + lease.voucher_ucr) * 1_000 // price - lease.claimed_units
    return max(min(in_cap, max(in_credit, 1)), 0)


def on_paid(lease: LeaseEntry, event: PeerPaid, redeem_ms: int) -> tuple[list[ProviderEffect], bool]:
    """Keep the highest voucher. -> the reply, and whether anything changed."""
    if event.signer != lease.document.requester:
        return [ReplyFailure("E1101", "the voucher was signed by somebody else")], False
    if lease.phase == "closed":
        return [ReplyFailure("E1302", "the escrow of this lease is closed")], False
    if event.cumulative_ucr > lease.document.cap_ucr:
        # The bank pays up to the cap only; a voucher beyond it would make us work for nothing.
        return [ReplyFailure("E1303", "the voucher promises more than the escrow holds")], False
    if event.cumulative_ucr <= lease.voucher_ucr:
        return [ReplyOk()], False
    if lease.voucher_ucr <= lease.redeemed_ucr:
        lease.redeem_ms = event.at_ms + redeem_ms
    lease.voucher, lease.voucher_ucr = event.voucher, event.cumulative_ucr
    return [ReplyOk()], True


def reckon(state: ProviderState, lease: LeaseEntry, event: LedgerClosed) -> None:
    """Remember, once, what the account behind a lease that is closed has left unpaid; nothing where we were convicted
    of a lie."""
    if event.paid_ucr is None or lease.reckoned:
        return
    lease.reckoned = True
    state.changes += 1
    owed_ucr = min(cost_ucr(lease.claimed_units, lease.document.price_ucr), lease.document.cap_ucr) - event.paid_ucr
    if owed_ucr <= 0 or event.slashed_ucr:
        return
    debts, account = state.debts, lease.document.requester
    debts[account] = debts.get(account, 0) + owed_ucr
    if len(debts) > MAX_DEBTORS:
        del debts[min(debts, key=lambda one: (debts[one], one))]


def settling(lease_id: bytes, lease: LeaseEntry) -> list[ProviderEffect]:
    """The next step of closing: first redeem, then close."""
    if lease.phase != "closing":
        return []
    return _redeeming(lease_id, lease) or [ReleaseEscrow(lease_id)]


def _redeeming(lease_id: bytes, lease: LeaseEntry) -> list[ProviderEffect]:
    if lease.voucher is None or lease.voucher_ucr <= lease.redeemed_ucr:
        return []
    return [RedeemVoucher(lease_id, lease.voucher_ucr, lease.voucher)]


def bank_work(state: ProviderState, lease_id: bytes, lease: LeaseEntry, now_ms: int) -> list[ProviderEffect]:
    """What the bank must be asked about `lease` now; asking again is harmless."""
    underpaid = lease.phase == "closed" and not lease.reckoned and unpaid_ucr(lease) > 0
    if lease.phase == "signed" or underpaid:
        return [CheckEscrow(lease_id)]
    # The requester may close alone once the lease has ended: whatever is not redeemed by then is lost.
    due_ms = min(lease.redeem_ms, lease.document.ends_ms - state.terms.policy.grace_ms)
    if lease.phase in ("open", "leaving") and now_ms >= due_ms:
        return _redeeming(lease_id, lease)
    return settling(lease_id, lease)
