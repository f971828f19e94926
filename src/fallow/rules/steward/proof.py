"""What a receipt proves to somebody who was not there.

That a receipt is intact (`wire/receipt_checks.py`) says that some keys signed it, and keys cost nothing. It proves
something once it is held against an anchor: a bank whose account the reader knows from elsewhere. Then the bank's word
stands behind the lease, behind the stake of everybody who checked, and behind the chance by which they were drawn.

Defends against: receipts whose keys, bank or auditors were invented; those of another pool; auditors who were chosen
instead of drawn, or had nothing to lose. Does not defend against: a bank that lies; several accounts of one owner; a
requester that leased from friends alone. What is left open is said with every receipt.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fallow.kinds.registry import KINDS, metered
from fallow.rules.steward.check import Check, Exhibit
from fallow.rules.steward.checks.registry import PolicyError, parse
from fallow.units import format_money
from fallow.wire.claims import accounts_hash, evidence_holds
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Lease, Settlement
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import Evidence
from fallow.wire.receipt_checks import (
    MissingError,
    ReceiptCheck,
    WrongError,
    intact,
    read_evidence,
    run_check,
    verify,
)
from fallow.wire.receipts import Receipt, TaskWork, read_receipt, work_task, work_units

ANCHORED = ("anchor", "bank", "stake", "draw")
"""The names of what is looked at beside `receipt_checks.CHECKS`, in order."""

ProofOutcome = Literal["holds", "incomplete", "not anchored", "fails"]


class Anchor(NamedTuple):
    """Whose word on money and chance is believed: a bank, by its account, and where the reader knows it from. (A
    ledger on a chain will be another.)"""

    bank: bytes
    source: str


class Accounts(NamedTuple):
    """Who signed. `auditors` are those whose word on the output is in the receipt."""

    bank: bytes
    requester: bytes
    provider: bytes
    auditors: tuple[bytes, ...]


class Proof(NamedTuple):
    """What came of it: all that was looked at, and three lines for people. `receipt` and `accounts` are None for a file
    that is not intact."""

    outcome: ProofOutcome
    checks: tuple[ReceiptCheck, ...]
    receipt: Receipt | None = None
    accounts: Accounts | None = None
    proven: str = ""
    by: str = ""
    unproven: str = ""

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the receipt would have to show, and does not."""
        return tuple(check.detail for check in self.checks if check.missing)


def prove(data: bytes, anchor: Anchor | None) -> Proof:
    """Look at a receipt file. It holds when it is intact, of the anchor's bank, and has the bank's word on all that it
    shows; it is incomplete when it lacks some of that. Without an anchor it is not anchored, whatever it says. Never
    raises. About 2 ms, and 0.5 ms for each auditor."""
    intacts = verify(data)
    if not intact(intacts):
        return Proof("fails", tuple(intacts))
    witness = _Witness(read_receipt(data))
    rows = witness.rows(anchor)
    if anchor is None:
        outcome: ProofOutcome = "not anchored"
    elif any(not row.ok and not row.missing for row in rows):
        outcome = "fails"
    else:
        outcome = "holds" if all(row.ok for row in rows) else "incomplete"
    return witness.proof(outcome, (*intacts, *rows))


class _Witness:
    """An intact receipt, read as its reader would."""

    def __init__(self, receipt: Receipt) -> None:
        self._receipt = receipt
        self._lease = decode(Lease, receipt.lease.body)
        self._bank = self._lease.bank
        self._checkers = (*receipt.evidence, *((receipt.sampled,) if receipt.sampled is not None else ()))
        self._leases = [read_evidence(one, self._bank)[0] for one in self._checkers]
        self._liars: list[bytes] = []
        lease, self._policy = self._lease, self._read_policy()
        self.accounts = Accounts(self._bank, lease.requester, lease.provider, tuple(x.provider for x in self._leases))

    def rows(self, anchor: Anchor | None) -> list[ReceiptCheck]:
        """One for each of ANCHORED."""
        if anchor is None:
            what = f"no bank was named that you know; the receipt itself says 0x{self._bank.hex()}"
            rest = [ReceiptCheck(name, False, "not looked at", missing=True) for name in ANCHORED[1:]]
            return [ReceiptCheck(ANCHORED[0], False, what, missing=True), *rest]
        steps = (lambda: self._anchor(anchor), self._settled, self._staked, self._drawn)
        return [run_check(name, step) for name, step in zip(ANCHORED, steps, strict=True)]

    def _anchor(self, anchor: Anchor) -> str:
        if self._bank != anchor.bank:
            raise WrongError(f"of the bank 0x{self._bank.hex()}; {anchor.source} is 0x{anchor.bank.hex()}")
        return f"the bank 0x{self._bank.hex()}, {anchor.source}"

    def _settled(self) -> str:
        """The bank's own word on the lease: that it was opened, and how it stands."""
        receipt = self._receipt
        if receipt.settlement is None:
            raise MissingError("the bank's word that this lease was opened")
        said = decode(Settlement, receipt.settlement.body)
        if receipt.verdict == "rejected" and (receipt.charge is None or not said.slashed_ucr):
            raise MissingError("the bank's word that it found the provider guilty")
        taken = f"it took {format_money(said.slashed_ucr)} of the provider's stake"
        if said.slashed_ucr and receipt.owed and not self._checkers:
            raise MissingError(f"anybody else's word on the work, although {taken} under this lease")
        return f"the lease is in its books, and {taken}" if said.slashed_ucr else "the lease is in its books"

    def _staked(self) -> str:
        """Its word on the leases of all who checked."""
        stated = self._receipt.standings
        said = [open_signed(one, Settlement, self._bank, self._bank) for one in stated]
        by_lease = {one.lease: one for one in said}
        wanted = {bytes(hash_document(lease, self._bank)): lease for lease in self._leases}
        if len(by_lease) != len(stated) or not by_lease.keys() <= wanted.keys():
            raise WrongError("the bank's word on a lease of nobody who checked, or twice on one")
        for digest, lease in wanted.items():
            who = f"0x{lease.provider.hex()}"
            if digest not in by_lease:
                raise MissingError(f"the bank's word that {who}, who checked, had a lease and a stake")
            if not lease.stake_ucr:
                raise MissingError(f"a stake of {who}, who checked and had nothing to lose")
            if by_lease[digest].slashed_ucr:
                self._liars.append(lease.provider)
        if not wanted:
            return "nobody checked it"
        if self._liars:
            return f"all who checked were leased, and the bank took the stake of {len(self._liars)} of them"
        least = min(lease.stake_ucr for lease in self._leases)
        return f"all who checked were leased, with {format_money(least)} at stake or more"

    def _drawn(self) -> str:
        """That those who checked are those whom the bank's randomness names, and did what they were drawn for."""
        policy = self._policy
        if isinstance(policy, str):
            raise MissingError(policy)
        if self._receipt.verdict == "rejected":
            return "the bank looked at the evidence itself"
        if not self._checkers:
            return "nobody checked it"
        if not policy.draws:
            return self._shown(policy, b"", b"")
        if self._receipt.draw is None:
            raise MissingError("the bank's word on the draw of those who checked")
        said = open_signed(self._receipt.draw, AuditDraw, self._bank, self._bank)
        claim, owner = self._drawn_for(self._receipt.drawn_for)
        if said.claim != hash_document(claim, self._bank):
            raise WrongError("the bank's draw is for another claim")
        if said.drawn != accounts_hash(self._receipt.drawn):
            raise WrongError("the accounts that it shows as drawn by stake are not those that the bank drew")
        return self._shown(policy, said.seed, owner)

    def _drawn_for(self, other: Evidence | None) -> tuple[ClaimRoot, bytes]:
        """The claim whose check it was, and its account: it must be about the same work."""
        own = decode(ClaimRoot, self._receipt.claim.body)
        if other is None:
            return own, self._lease.provider
        lease, claim = read_evidence(other, self._bank)
        if not evidence_holds(other, work_task(self._receipt, self._lease.kind), claim.root, claim.count):
            raise WrongError("the draw was for a claim about other work")
        if lease.provider == self._lease.provider and claim != own:
            raise WrongError("the draw was for another claim of the provider")
        return claim, lease.provider

    def _shown(self, policy: Check, seed: bytes, drawn_for: bytes) -> str:
        receipt, task = self._receipt, work_task(self._receipt, self._lease.kind)
        names = self.accounts.auditors
        others, sampled_by = (names[:-1], names[-1]) if receipt.sampled is not None else (names, b"")
        output = receipt.work.output if isinstance(receipt.work, TaskWork) else None
        if output is not None and metered(task, output) != work_units(receipt):
            raise WrongError("the work does not cost what its output comes to")
        seen = Exhibit(
            self._lease.kind, task, output, self._lease.provider, others, receipt.sampled, sampled_by, seed, drawn_for,
            receipt.undrawn, receipt.drawn, receipt.outside,
        )  # fmt: skip
        shown = policy.shown(seen)
        if shown.wrong:
            raise WrongError(shown.wrong)
        return shown.words

    def _read_policy(self) -> Check | str:
        """The check that was ordered, or why this Fallow cannot judge it."""
        work, kind = self._receipt.work, KINDS.get(self._lease.kind)
        if kind is None:
            return f"work that this Fallow could judge: it knows none called {self._lease.kind[:40]!r}"
        in_links = isinstance(work, TaskWork) and kind.claimed_chain(work.task, work.output) is not None
        found = parse(self._receipt.policy, in_links=in_links)
        return f"a check that this Fallow could judge: {found.what}" if isinstance(found, PolicyError) else found

    # words ----------------------------------------------------------------------------------------------------------

    def proof(self, outcome: ProofOutcome, checks: tuple[ReceiptCheck, ...]) -> Proof:
        """With the three lines."""
        who = self.accounts
        by = [
            f"the bank 0x{who.bank.hex()} for money, stakes and the draw",
            f"the requester 0x{who.requester.hex()} for the order",
            f"the provider 0x{who.provider.hex()} for the claim",
            *(f"0x{account.hex()} for the check" for account in who.auditors),
        ]
        proven, unproven = self._proven(outcome, checks), self._unproven(outcome)
        return Proof(outcome, checks, self._receipt, who, proven, "; ".join(by) + ".", unproven)

    def _proven(self, outcome: ProofOutcome, checks: tuple[ReceiptCheck, ...]) -> str:
        signed = f"the provider signed for this output, which is {self._receipt.verdict}, and was paid as shown"
        if outcome == "not anchored":
            return "nothing but that these keys signed what is shown. Anybody can make such keys."
        if outcome == "fails":
            return "nothing."
        if outcome == "incomplete":
            return f"{signed}. What the receipt lacks is not proven."
        computed = "nobody else's word on it is here: it was not seen to be checked"
        if self._receipt.verdict == "rejected":
            computed = f"{len(self._checkers)} others gave another output, and the bank took a stake for it"
        elif len(self._liars) < len(self._checkers):
            computed = next(check.detail for check in checks if check.name == "draw")
        if self._liars:
            names = ", ".join(f"0x{account.hex()}" for account in self._liars)
            computed += f"; the word of {names} counts for nothing, since the bank took its stake under the same lease"
        policy = self._policy
        means = "" if isinstance(policy, str) else f" That it was checked by {policy.name} proves {policy.proves}."
        return f"{signed}; {computed}.{means}"

    def _unproven(self, outcome: ProofOutcome) -> str:
        """What is left open."""
        if outcome in ("not anchored", "fails"):
            return "that bank, stakes and auditors exist, that anybody was paid, that the output is right."
        policy = self._policy
        open_ends = ["that model, data or answer are any good; whose these accounts are"]
        if self._bank in self.accounts[1:3]:
            open_ends.append("what the bank says of itself: it is a party here")
        if not isinstance(policy, str):
            open_ends.insert(0, policy.leaves_open)
            if policy.draws and self._checkers:
                open_ends.append("that nobody else could have been drawn: the requester chose whom to lease from")
        return "; ".join(open_ends) + "."
