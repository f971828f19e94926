"""The provider's market rules: which orders it quotes, at what price, and which leases it signs.

A quote reserves exactly what it names until it expires; one reservation becomes at most one lease. Defends against:
leases for other terms than were quoted, one quote signed twice, quotes asked for to block a machine (bounded in number,
per requester, and in time). Does not defend against many requesters blocking together: their accounts are free.
"""

from __future__ import annotations

from collections.abc import Iterator

from fallow.rules.placement import Capacity, Share, free_of, place, shortfalls
from fallow.rules.provider.events import (
    CountersignLease,
    PeerOrdered,
    PeerProposedLease,
    ProviderEffect,
    ReplyDeclined,
    ReplyFailure,
    ReplyQuote,
)
from fallow.rules.provider.state import LeaseEntry, ProviderState, Reservation
from fallow.units import Ucr, format_money
from fallow.wire.documents import HostedOrder, Lease, Order, Quote
from fallow.wire.eip712 import hash_document
from fallow.wire.messages import EXACT, Shortfall

MAX_LABEL = 200


def taken_shares(state: ProviderState) -> list[Share]:
    """What reservations and working leases hold now."""
    working = [lease.share for lease in state.leases.values() if lease.phase in ("signed", "open")]
    return working + [reservation.share for reservation in state.reservations.values()]


def free_now(state: ProviderState) -> Capacity:
    """What a new order could get; nothing while the owner is active."""
    return Capacity(0, 0, 0) if state.owner else free_of(state.terms.capacity, taken_shares(state))


def free_stake_ucr(state: ProviderState) -> Ucr:
    """The stake that stands behind no lease and no quote yet."""
    bound = sum(lease.document.stake_ucr for lease in state.leases.values() if lease.phase != "closed")
    quoted = sum(reservation.quote.stake_ucr for reservation in state.reservations.values())
    return Ucr(max(state.stake_ucr - bound - quoted, 0))


def price_ucr(state: ProviderState, kind: str) -> Ucr:
    """What 1,000 units of `kind` cost now: the owner's minimum, and up to `markup_percent` more the fuller the machine
    is. KeyError for a kind that is not sold."""
    least, whole = state.terms.rates[kind], state.terms.capacity
    free = free_of(whole, taken_shares(state))
    used = [_used_percent(whole.cpu_millis, free.cpu_millis), _used_percent(len(whole.cards), len(free.cards))]
    return Ucr(least + least * state.terms.policy.markup_percent * max(used) // 10_000)


def on_ordered(state: ProviderState, event: PeerOrdered) -> list[ProviderEffect]:
    """Quote, or decline with every reason. An order that was quoted before gets the same quote."""
    order = event.order
    if event.signer != order.requester or event.caller != order.node:
        # Somebody replays an order that is not its own, to have resources reserved in another's name.
        return [ReplyFailure("E1101", "the order was signed for another account or node")]
    rows = tuple(_unacceptable(state, order, event.at_ms))
    if order.bank != state.terms.bank:
        return [ReplyDeclined(rows)]
    order_hash = hash_document(order, order.bank)
    known = _quote_for(state, order_hash)
    if known is not None:
        return [ReplyQuote(known)]
    share = place(free_now(state), order)
    if rows or share is None:
        return [ReplyDeclined((*rows, *shortfalls(state.terms.capacity, free_now(state), order))[:32])]
    stake_ucr = max(order.min_stake_ucr, min(state.terms.policy.stake_ucr, free_stake_ucr(state)))
    quote = Quote(
        order=order_hash, provider=state.terms.account, node=state.terms.node,
        price_ucr=min(price_ucr(state, order.kind), order.max_price_ucr), stake_ucr=stake_ucr,
        cards=",".join(share.cards), expires_ms=event.at_ms + state.terms.policy.quote_ms,
    )  # fmt: skip
    quote_hash = hash_document(quote, order.bank)
    state.reservations[order_hash] = Reservation(order, quote, quote_hash, share)
    state.changes += 1
    return [ReplyQuote(quote)]


def on_proposed(state: ProviderState, event: PeerProposedLease) -> list[ProviderEffect]:
    """Sign a lease for a quote of ours, or decline. A lease that was signed before is signed again, alike."""
    lease = event.lease
    if event.signer != lease.requester or event.caller != lease.requester_node:
        return [ReplyFailure("E1101", "the lease was signed for another account or node")]
    if lease.bank != state.terms.bank:
        return [ReplyDeclined((Shortfall("lease", 0, 0, "another bank"),))]
    lease_id = hash_document(lease, lease.bank)
    if lease_id in state.leases:
        return [CountersignLease(lease)]
    reservation = state.reservations.get(lease.order)
    wrong = _mismatch(state, lease, reservation, event.at_ms)
    if wrong or reservation is None:
        return [ReplyDeclined((Shortfall("lease", 0, 0, wrong),))]
    del state.reservations[lease.order]
    state.leases[lease_id] = LeaseEntry(
        document=lease, order=reservation.order, quote=reservation.quote, signed=event.signed,
        share=reservation.share, phase="signed", until_ms=event.at_ms + state.terms.policy.escrow_ms,
    )  # fmt: skip
    state.changes += 1
    return [CountersignLease(lease)]


def _unacceptable(state: ProviderState, order: Order, now_ms: int) -> Iterator[Shortfall]:
    """Every reason against `order` other than too little of a resource."""
    terms, policy = state.terms, state.terms.policy
    if order.bank != terms.bank:
        yield Shortfall("bank", 0, 0, "settles at another bank")
    if order.kind not in terms.rates:
        yield Shortfall("kind", 0, 0, f"does no work of kind {order.kind!r}"[:MAX_LABEL])
    elif order.max_price_ucr < terms.rates[order.kind]:
        yield Shortfall("price_ucr", order.max_price_ucr, terms.rates[order.kind], "asks more than the order pays")
    if isinstance(order, HostedOrder):
        asked = [name for name in ("ports", "network", "storage_bytes") if getattr(order, name)]
        yield from (Shortfall(name, 0, 0, "nothing serves this yet") for name in asked or ["hosting"])
    if order.numerics == EXACT and not terms.exact:
        yield Shortfall("exact", 0, 0, "does not reproduce exact arithmetic")
    elif order.numerics not in ("", EXACT, terms.numerics):
        yield Shortfall("numerics", 0, 0, f"is of class {terms.numerics}"[:MAX_LABEL])
    if (debt_ucr := state.debts.get(order.requester, 0)) > policy.debt_ucr:
        what = f"E1207: {format_money(debt_ucr)} of this account's earlier work here was never paid"
        yield Shortfall("debt_ucr", policy.debt_ucr, debt_ucr, what[:MAX_LABEL])
    if order.min_stake_ucr > free_stake_ucr(state):
        yield Shortfall("stake_ucr", order.min_stake_ucr, free_stake_ucr(state), "too little free stake")
    if not now_ms < order.ends_ms <= now_ms + policy.max_lease_ms:
        yield Shortfall("ends_ms", order.ends_ms, now_ms + policy.max_lease_ms, "ends too late, or has ended")
    if state.owner:
        yield Shortfall("owner is active", 0, 0, state.owner[:MAX_LABEL])
    working = sum(lease.phase != "closed" for lease in state.leases.values())
    pending = [reservation.order.requester for reservation in state.reservations.values()]
    if working >= policy.max_leases:
        yield Shortfall("leases", working + 1, policy.max_leases, "holds as many leases as it can")
    if len(pending) >= policy.max_reservations or pending.count(order.requester) >= policy.max_reservations_each:
        yield Shortfall("quotes", len(pending) + 1, policy.max_reservations, "has too many open quotes")


def _mismatch(state: ProviderState, lease: Lease, reservation: Reservation | None, now_ms: int) -> str:
    """Why `lease` is not the one that was quoted; "" when it is. Each term is one that a requester would gain by
    changing."""
    if reservation is None:
        return "the quote has expired or was used"
    order, quote, terms = reservation.order, reservation.quote, state.terms
    agreed = (
        (lease.quote == reservation.quote_hash, "it is for another quote"),
        (lease.requester == order.requester and lease.requester_node == order.node, "another requester"),
        (lease.provider == terms.account and lease.provider_node == terms.node, "another provider"),
        (lease.kind == order.kind, "another kind of work"),
        (lease.price_ucr == quote.price_ucr, "another price"),
        (lease.stake_ucr == quote.stake_ucr, "another stake"),
        (lease.starts_ms <= lease.ends_ms <= order.ends_ms, "it lasts longer than the order"),
        (lease.ends_ms > now_ms, "it has ended"),
        (not state.owner, "the owner is active"),
    )
    return next((note for holds, note in agreed if not holds), "")


def _quote_for(state: ProviderState, order_hash: bytes) -> Quote | None:
    if order_hash in state.reservations:
        return state.reservations[order_hash].quote
    return next((lease.quote for lease in state.leases.values() if lease.document.order == order_hash), None)


def _used_percent(whole: int, free: int) -> int:
    return 100 * (whole - free) // whole if whole else 0
