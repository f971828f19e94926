"""Charges: stake is locked for a proven wrong answer, can be answered for, and is taken or given back; for a proven
contradiction it is taken at once.

Defends against: accusations without evidence, by others than the requester, twice for one task, over a claim that the
bank drew nobody for; witnesses that were not drawn, are the accuser, the accused or one account in two coats, or whose
stake is gone or less than what is taken; accusing for a reward (there is none: what is taken goes to the pool), or to
have accepted work back (vouchers are paid while a charge is open); leaving before the check is done (stake stays
slashable while it unbonds, a witness's until the charge is decided). An accused that did nothing wrong appeals, and the
witnesses lose what they put up. Does not defend against: a referee that lies, or colluders who are drawn together
against somebody who does not answer in time (`docs/explanation/economics.md`: how likely that is, what it costs them).
"""

from __future__ import annotations

import msgspec

from fallow.rules.escrow.books import PURSE, Draft, escrow_of, saturate
from fallow.rules.escrow.facts import ChargeFacts, VerdictFacts
from fallow.rules.escrow.leases import settle
from fallow.rules.escrow.rows import (
    Book,
    ChargeStage,
    DrawRow,
    EscrowRow,
    Pending,
    Place,
    PoolTerms,
    VerdictRow,
    draw_key,
    pack,
    verdict_key,
)
from fallow.rules.trust import may_charge
from fallow.wire.codec import decode
from fallow.wire.ledger import OpenCharge, Refusal, Slash

LOST_APPEAL = 4
"""An appeal that fails costs one part in so many of what was charged, on top of that."""


def slash(draft: Draft, facts: VerdictFacts, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Charge the accused, on evidence that hangs together."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # Only who pays for the work may charge it: third parties would slash to have a rival's stake burned.
    if facts.signer != escrow.requester:
        return Refusal.WRONG_SIGNER
    # The claim must be the provider's own, not one that the requester signed for it.
    if facts.accused != escrow.provider:
        return Refusal.BAD_EVIDENCE
    known = draft.find(VerdictRow, verdict_key(facts.lease, facts.ground))
    # One wrong answer is punished once, however often and in whatever words it is charged.
    if known is not None:
        return None if known.verdict == facts.operation else Refusal.ALREADY_JUDGED
    if escrow.ground:
        return Refusal.UNDER_CHARGE
    drawn = draft.find(DrawRow, draw_key(facts.claim))
    # What is shown as evidence was committed to before anybody could know who would check it.
    if drawn is None or drawn.lease != facts.lease:
        return Refusal.NOT_DRAWN
    refusal = _witnesses_stand(draft, facts, escrow, drawn)
    return refusal or _charge(draft, facts, escrow, now_ms, terms)


def slash_equivocation(
    draft: Draft, facts: VerdictFacts, caller: bytes, now_ms: int, terms: PoolTerms
) -> Refusal | None:
    """Carry out a proof that needs no witnesses, and leaves nothing to answer."""
    escrow = escrow_of(draft, facts.lease)
    if escrow is None:
        return Refusal.NO_ESCROW
    # A charge also ends the lease, and whether to end it is the requester's choice, not that of whoever saw two roots.
    if caller != escrow.requester:
        return Refusal.NOT_A_PARTY
    if facts.accused != escrow.provider:
        return Refusal.BAD_EVIDENCE
    known = draft.find(VerdictRow, verdict_key(facts.lease, facts.ground))
    if known is not None:
        return None if known.verdict == facts.operation else Refusal.ALREADY_JUDGED
    sources = _sources(draft, escrow, facts.slash_ucr, now_ms, terms)
    if isinstance(sources, Refusal):
        return sources
    for source, amount_ucr in sources:
        draft.move(source, PURSE, amount_ucr)
    slashed = sum(amount_ucr for _, amount_ucr in sources)
    draft.put(VerdictRow(facts.lease, facts.ground, facts.operation, slashed, escrow.provider))
    _slashed(draft, facts.lease, slashed, now_ms, terms)
    return None


def appeal(draft: Draft, facts: ChargeFacts, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Have the referee decide."""
    escrow, charge = _charged(draft, facts)
    if escrow is None or charge is None:
        return Refusal.NO_CHARGE
    if caller != escrow.provider:
        return Refusal.NOT_A_PARTY
    if charge.stage == ChargeStage.CHARGED:
        draft.put(msgspec.structs.replace(charge, stage=ChargeStage.APPEALED, due_ms=now_ms + terms.ruling_ms))
    return None if charge.is_open else Refusal.TOO_LATE


def rule(
    draft: Draft, facts: ChargeFacts, caller: bytes, now_ms: int, terms: PoolTerms, *, upheld: bool
) -> Refusal | None:
    """The referee's word."""
    escrow, charge = _charged(draft, facts)
    if caller != (terms.referee or terms.operator):
        return Refusal.NOT_REFEREE
    if escrow is None or charge is None:
        return Refusal.NO_CHARGE
    if charge.stage == ChargeStage.CHARGED:
        return Refusal.TOO_EARLY
    if not charge.is_open:
        return None if upheld == (charge.stage == ChargeStage.UPHELD) else Refusal.ALREADY_JUDGED
    _decide(draft, charge, now_ms, terms, upheld=upheld)
    if upheld:
        # Else the guilty would appeal for the chance that the referee sleeps (docs/explanation/economics.md).
        _fine(draft, escrow.provider, -(-charge.locked_ucr // LOST_APPEAL), now_ms)
    else:
        _punish_witnesses(draft, charge, escrow, now_ms)
    return None


def conclude(draft: Draft, lease: bytes, now_ms: int, terms: PoolTerms) -> None:
    """Whatever is asked about a lease comes after what time has decided of its charge: not appealed, it is carried out;
    appealed and not ruled on, it falls, since in doubt nobody's stake is taken."""
    escrow = escrow_of(draft, lease)
    if escrow is None or not escrow.ground:
        return
    charge = draft.find(VerdictRow, verdict_key(lease, escrow.ground))
    assert charge is not None, "a charge vanished"
    if charge.due_ms <= now_ms:
        _decide(draft, charge, now_ms, terms, upheld=charge.stage == ChargeStage.CHARGED)


def charge_of(row: VerdictRow) -> OpenCharge:
    """What is said of a charge that is open."""
    evidence = decode(Slash, row.evidence) if row.evidence else None
    return OpenCharge(row.ground, row.locked_ucr, row.due_ms, row.stage == ChargeStage.APPEALED, evidence)


def _charged(draft: Draft, facts: ChargeFacts) -> tuple[EscrowRow | None, VerdictRow | None]:
    return escrow_of(draft, facts.operation), draft.find(VerdictRow, verdict_key(facts.operation, facts.ground))


def _witnesses_stand(draft: Draft, facts: VerdictFacts, escrow: EscrowRow, drawn: DrawRow) -> Refusal | None:
    accounts = [witness.account for witness in facts.witnesses]
    # One account with many nodes is one voice; the accuser and the accused have none.
    if len(set(accounts)) != len(accounts) or not may_charge(accounts, escrow.provider):
        return Refusal.BAD_WITNESS
    if escrow.requester in accounts or escrow.provider in accounts:
        return Refusal.BAD_WITNESS
    for witness in facts.witnesses:
        lease = escrow_of(draft, witness.lease)
        # A lease that never reached this bank binds nobody to it.
        if lease is None or lease.provider != witness.account:
            return Refusal.BAD_WITNESS
    # An accuser's friends do not come when they are called, but when chance calls them.
    return None if set(accounts) <= set(drawn.accounts) else Refusal.NOT_DRAWN


def _charge(draft: Draft, facts: VerdictFacts, escrow: EscrowRow, now_ms: int, terms: PoolTerms) -> Refusal | None:
    free: dict[bytes, int] = {}
    for witness in facts.witnesses:
        draft.mature(witness.account, now_ms)
        account = draft.account(witness.account)
        free[witness.account] = account.live_ucr - account.pledged_ucr
    # Stake that has left since, or stands behind another charge, makes no witness.
    if min(free.values()) < max(1, terms.min_witness_stake_ucr):
        return Refusal.BAD_WITNESS
    return _lock(draft, facts, escrow, free, now_ms, terms)


def _lock(
    draft: Draft, facts: VerdictFacts, escrow: EscrowRow, free: dict[bytes, int], now_ms: int, terms: PoolTerms
) -> Refusal | None:
    """Set the accused's stake aside, no more than the witnesses have `free`, and have them pledge as much."""
    sources = _sources(draft, escrow, min(facts.slash_ucr, sum(free.values())), now_ms, terms)
    if isinstance(sources, Refusal):
        return sources
    locked, due_ms = sum(amount_ucr for _, amount_ucr in sources), now_ms + terms.answer_ms
    pledges = _pledge(draft, free, locked, due_ms + terms.ruling_ms)
    charge = VerdictRow(
        lease=facts.lease, ground=facts.ground, verdict=facts.operation, slashed_ucr=0, accused=escrow.provider,
        worth_ucr=facts.worth_ucr, due_ms=due_ms, stage=ChargeStage.CHARGED, pledges=pack(pledges),
        evidence=facts.evidence,
    )  # fmt: skip
    draft.put(charge)
    draft.put(msgspec.structs.replace(escrow, charged_ucr=locked, ground=facts.ground))
    for source, amount_ucr in sources:
        draft.move(source, Book(Place.CHARGE, facts.lease + facts.ground), amount_ucr)
    conclude(draft, facts.lease, now_ms, terms)
    return None


def _pledge(draft: Draft, free: dict[bytes, int], locked_ucr: int, until_ms: int) -> list[tuple[bytes, int]]:
    """Who answers for how much of `locked_ucr`: all in proportion to what they have free."""
    pledges: list[tuple[bytes, int]] = []
    left, room = locked_ucr, sum(free.values())
    for account, free_ucr in free.items():
        part = -(-left * free_ucr // room)
        left, room = left - part, room - free_ucr
        row = draft.account(account)
        pledged, until = row.pledged_ucr + part, max(row.pledged_until_ms, until_ms)
        draft.put(msgspec.structs.replace(row, pledged_ucr=pledged, pledged_until_ms=until))
        pledges.append((account, part))
    return pledges


def _decide(draft: Draft, charge: VerdictRow, now_ms: int, terms: PoolTerms, *, upheld: bool) -> None:
    escrow, lease = escrow_of(draft, charge.lease), charge.lease
    assert escrow is not None, "an escrow vanished"
    back = Book(Place.STAKE, escrow.provider) if escrow.closed_ms else Book(Place.BOND, lease)
    draft.move(Book(Place.CHARGE, lease + charge.ground), PURSE if upheld else back, charge.locked_ucr)
    slashed, stage = (charge.locked_ucr, ChargeStage.UPHELD) if upheld else (0, ChargeStage.OVERTURNED)
    draft.put(msgspec.structs.replace(charge, locked_ucr=0, slashed_ucr=slashed, stage=stage, evidence=b""))
    draft.put(msgspec.structs.replace(escrow_of(draft, lease) or escrow, charged_ucr=0, ground=b""))
    for witness, pledged_ucr in charge.witnesses:
        row = draft.account(witness)
        draft.put(msgspec.structs.replace(row, pledged_ucr=max(0, row.pledged_ucr - pledged_ucr)))
    if upheld:
        _slashed(draft, lease, slashed, now_ms, terms)


def _slashed(draft: Draft, lease: bytes, slashed_ucr: int, now_ms: int, terms: PoolTerms) -> None:
    escrow = escrow_of(draft, lease)
    assert escrow is not None, "an escrow vanished"
    account = draft.account(escrow.provider)
    draft.put(msgspec.structs.replace(account, slashed_ucr=saturate(account.slashed_ucr + slashed_ucr)))
    draft.untie(escrow.provider)
    escrow = msgspec.structs.replace(escrow, slashed_ucr=escrow.slashed_ucr + slashed_ucr)
    draft.put(escrow)
    if not escrow.closed_ms:
        # What is unpaid is void, and the rest of the bond stays in reach of further charges for a while.
        settle(draft, escrow, now_ms, now_ms + terms.hold_ms)


def _punish_witnesses(draft: Draft, charge: VerdictRow, escrow: EscrowRow, now_ms: int) -> None:
    """Take what they pledged. The accused gets as much of it as the claim was worth that it was not paid for, the pool
    the rest."""
    damage = min(charge.worth_ucr, escrow.cap_ucr - escrow.paid_ucr)
    for account, pledged_ucr in charge.witnesses:
        damage -= _fine(draft, account, pledged_ucr, now_ms, escrow.provider, damage)


def _fine(draft: Draft, account: bytes, fine_ucr: int, now_ms: int, to: bytes = b"", most_ucr: int = 0) -> int:
    """Take it of what is free or on its way out; what stands behind leases is owed, and taken once it is free. Of what
    there is `to` gets at most `most_ucr`, the pool the rest; -> what `to` got."""
    draft.mature(account, now_ms)
    entries, left = list(draft.pending(account)), most_ucr
    from_free = min(fine_ucr, draft.account(account).stake_ucr)
    unbonding = _cut(entries, b"", fine_ucr - from_free)
    if unbonding:
        draft.set_pending(account, entries)
    for place, amount_ucr in ((Place.STAKE, from_free), (Place.UNBONDING, unbonding)):
        part = min(left, amount_ucr)
        left -= part
        draft.move(Book(place, account), Book(Place.AVAILABLE, to), part)
        draft.move(Book(place, account), PURSE, amount_ucr - part)
    row, taken = draft.account(account), from_free + unbonding
    slashed, fined = saturate(row.slashed_ucr + taken), row.fined_ucr + fine_ucr - taken
    draft.put(msgspec.structs.replace(row, slashed_ucr=slashed, fined_ucr=fined))
    draft.untie(account)
    return most_ucr - left


def _sources(
    draft: Draft, escrow: EscrowRow, most_ucr: int, now_ms: int, terms: PoolTerms
) -> list[tuple[Book, int]] | Refusal:
    """Where a lease's stake is now, and how much to take from each place, at most `most_ucr` in all: its bond while it
    is open; then its held bond, then what became free, then what is on its way out, latest first. Bonds of other leases
    stand behind other people's work and stay. Takes the amounts off the pending list; the caller moves the money."""
    if most_ucr < 1:
        return Refusal.ZERO_AMOUNT
    if escrow.closed_ms and now_ms > escrow.closed_ms + terms.unbonding_ms:
        return Refusal.TOO_LATE
    draft.mature(escrow.provider, now_ms)
    wanted_ucr = min(most_ucr, escrow.stake_ucr - escrow.slashed_ucr - escrow.charged_ucr)
    bond_ucr = min(wanted_ucr, escrow.bond_ucr)
    sources = [(Book(Place.BOND, escrow.lease), bond_ucr)] if bond_ucr else []
    sources += _loose(draft, escrow, wanted_ucr) if escrow.closed_ms else []
    # A charge that takes nothing would cost nobody anything, and still end the lease for its requester.
    return sources or Refusal.STAKE_TOO_SMALL


def _loose(draft: Draft, escrow: EscrowRow, wanted_ucr: int) -> list[tuple[Book, int]]:
    provider, left = escrow.provider, wanted_ucr
    free = draft.account(provider).stake_ucr
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
