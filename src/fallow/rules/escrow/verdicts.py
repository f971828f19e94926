"""Slashing: taking stake for a proven wrong answer or a proven contradiction.

Defends against: accusations without evidence, by others than the requester, twice for one task, with witnesses that are
the accuser, the accused, one account in two coats, or free to make (each needs stake behind a lease at this bank);
leaving before the check is done (stake stays slashable while it unbonds). Does not defend against: an accuser who owns
two staked witnesses, or witnesses who collude; that is why auditors are drawn at random after the claim, and why what
can be slashed is bounded by the lease's stake. A lane's claim names the task's kind, parameters and seed, not its
input blobs; for those the signed order is the only evidence.
"""

from __future__ import annotations

import msgspec

from fallow.rules.escrow.books import PURSE, Draft, escrow_of, saturate
from fallow.rules.escrow.facts import VerdictFacts
from fallow.rules.escrow.leases import settle
from fallow.rules.escrow.rows import (
    Book,
    EscrowRow,
    Pending,
    Place,
    PoolTerms,
    VerdictRow,
    verdict_key,
)
from fallow.wire.ledger import Refusal

MIN_WITNESSES = 2


def slash(draft: Draft, facts: VerdictFacts, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Carry out a verdict whose evidence hangs together."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # Only who pays for the work may charge it: third parties would slash to have a rival's stake burned.
    if facts.signer != escrow.requester:
        return Refusal.WRONG_SIGNER
    # The claim must be the provider's own, not one that the requester signed for it.
    if facts.accused != escrow.provider:
        return Refusal.BAD_EVIDENCE
    refusal = _witnesses_stand(draft, facts, escrow, terms)
    return refusal or _carry_out(draft, facts, escrow, now_ms, terms)


def slash_equivocation(
    draft: Draft, facts: VerdictFacts, caller: bytes, now_ms: int, terms: PoolTerms
) -> Refusal | None:
    """Carry out a proof that needs no witnesses."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # A charge also ends the lease, and whether to end it is the requester's choice, not that of whoever saw two roots.
    if caller != escrow.requester:
        return Refusal.NOT_A_PARTY
    if facts.accused != escrow.provider:
        return Refusal.BAD_EVIDENCE
    return _carry_out(draft, facts, escrow, now_ms, terms)


def _witnesses_stand(draft: Draft, facts: VerdictFacts, escrow: EscrowRow, terms: PoolTerms) -> Refusal | None:
    accounts = {witness.account for witness in facts.witnesses}
    # One account with many nodes is one voice; the accuser and the accused have none.
    if len(accounts) != len(facts.witnesses) or len(accounts) < MIN_WITNESSES:
        return Refusal.BAD_WITNESS
    if escrow.requester in accounts or escrow.provider in accounts:
        return Refusal.BAD_WITNESS
    for witness in facts.witnesses:
        lease = escrow_of(draft, witness.lease)
        # A lease that never reached this bank, or has no stake behind it, costs an accuser nothing to make up.
        if lease is None or lease.provider != witness.account or lease.stake_ucr < terms.min_witness_stake_ucr:
            return Refusal.BAD_WITNESS
    return None


def _carry_out(draft: Draft, facts: VerdictFacts, escrow: EscrowRow, now_ms: int, terms: PoolTerms) -> Refusal | None:
    known = draft.find(VerdictRow, verdict_key(facts.lease, facts.ground))
    # One wrong answer is punished once, however often and in whatever words it is charged.
    if known is not None:
        return None if known.verdict == facts.operation else Refusal.ALREADY_JUDGED
    if escrow.closed_ms and now_ms > escrow.closed_ms + terms.unbonding_ms:
        return Refusal.TOO_LATE
    wanted = min(facts.slash_ucr, escrow.stake_ucr - escrow.slashed_ucr)
    if not escrow.closed_ms:
        # What is unpaid is void, and the bond stays in reach of further verdicts for a while.
        settle(draft, escrow, now_ms, now_ms + terms.hold_ms)
    slashed = 0
    for source, amount_ucr in _sources(draft, escrow, wanted):
        # Rounded down for the accuser and up for the pool, over the whole and not for each source.
        reward = (slashed + amount_ucr) // 2 - slashed // 2
        draft.move(source, Book(Place.AVAILABLE, escrow.requester), reward)
        draft.move(source, PURSE, amount_ucr - reward)
        slashed += amount_ucr
    _record(draft, facts, slashed)
    return None


def _sources(draft: Draft, escrow: EscrowRow, wanted_ucr: int) -> list[tuple[Book, int]]:
    """Where a closed lease's stake is now, and how much to take from each place: its held bond, then what became free,
    then what is on its way out, latest first. Bonds of other leases stand behind other people's work and stay. Takes
    the amounts off the pending list; the caller moves the money."""
    provider = escrow.provider
    left, free = wanted_ucr, draft.account(provider).stake_ucr
    entries = list(draft.pending(provider))
    held = _cut(entries, escrow.lease, left)
    from_free = min(left - held, free)
    unbonding = _cut(entries, b"", left - held - from_free)
    if held or unbonding:
        draft.set_pending(provider, entries)
    places = ((Place.HELD, held), (Place.STAKE, from_free), (Place.UNBONDING, unbonding))
    return [(Book(place, provider), amount_ucr) for place, amount_ucr in places if amount_ucr]


def _cut(entries: list[Pending], lease: bytes, wanted_ucr: int) -> int:
    """Take up to `wanted_ucr` off the entries of `lease`, latest first; -> how much there was. Emptied ones go."""
    taken = 0
    for index in reversed(range(len(entries))):
        entry = entries[index]
        if entry.lease != lease or taken == wanted_ucr:
            continue
        amount_ucr = min(entry.amount_ucr, wanted_ucr - taken)
        entries[index] = msgspec.structs.replace(entry, amount_ucr=entry.amount_ucr - amount_ucr)
        taken += amount_ucr
    entries[:] = [entry for entry in entries if entry.amount_ucr]
    return taken


def _record(draft: Draft, facts: VerdictFacts, slashed_ucr: int) -> None:
    draft.put(VerdictRow(facts.lease, facts.ground, facts.operation, slashed_ucr))
    escrow = escrow_of(draft, facts.lease)
    assert escrow is not None, "an escrow vanished"
    draft.put(msgspec.structs.replace(escrow, slashed_ucr=escrow.slashed_ucr + slashed_ucr))
    account = draft.account(escrow.provider)
    draft.put(
        msgspec.structs.replace(
            account,
            slashed_ucr=saturate(account.slashed_ucr + slashed_ucr),
            tied_ucr=min(account.tied_ucr, account.owned_ucr),
        )
    )
