"""Checks a receipt again, from nothing but the file.

Defends against: any change to the file; a receipt put together from parts that do not belong together; a payment, a
stake or a price that does not follow from what both sides signed; auditors who are one and the same, or who are the
parties themselves. Does not defend against: a requester that seals no receipt; two accounts that belong to one person;
an answer that is wrong although everyone who computed it agrees; keys that were invented for the occasion, the bank's
among them. The file alone proves what these keys signed, and no more: `rules/steward/proof.py` holds it against a bank
that the reader knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from blake3 import blake3

from fallow.errors import FallowError, fail
from fallow.units import cost_ucr, format_money, to_text
from fallow.wire.certificates import SKEW_MS, read_certificate
from fallow.wire.claims import check_path, evidence_holds, task_id
from fallow.wire.codec import decode
from fallow.wire.documents import (
    ClaimRoot,
    Document,
    Lease,
    Order,
    Quote,
    ReceiptSeal,
    Settlement,
    Signed,
    Verdict,
    Voucher,
)
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import Evidence
from fallow.wire.receipts import (
    MAX_RECEIPT_BYTES,
    LaneWork,
    NamedLaneWork,
    Receipt,
    SealedReceipt,
    TaskWork,
    open_receipt,
    work_leaf,
    work_output,
    work_setting,
    work_task,
    work_units,
)

D = TypeVar("D", bound=Document)

CHECKS = (
    "encoding", "seal", "order", "quote", "lease", "certificates", "claim", "work", "auditors", "payment", "charge",
    "settlement",
)  # fmt: skip
"""The names of all checks, in order. The first two stand for the whole file: when one fails, the rest say nothing."""


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """One thing that was checked. `detail` says in words what holds, or what does not. What is `missing` is not wrong:
    the receipt does not hold what would show it."""

    name: str
    ok: bool
    detail: str
    missing: bool = False


class WrongError(ValueError):
    """What makes a check fail, in words."""


class MissingError(WrongError):
    """What a check would have needed and the receipt does not hold, in words."""


def verify(data: bytes) -> list[ReceiptCheck]:
    """Check a receipt file: one ReceiptCheck for each of CHECKS, in order. The receipt is intact when there are all of
    them and every one is ok. Never raises, whatever the bytes. About 1 ms, and 0.2 ms for each auditor."""
    try:
        sealed = decode(SealedReceipt, data, MAX_RECEIPT_BYTES)
        receipt = open_receipt(sealed)
        lease = decode(Lease, receipt.lease.body)
    except FallowError as error:
        return [
            ReceiptCheck("encoding", False, error.what),
            *(ReceiptCheck(n, False, "cannot be read") for n in CHECKS[1:]),
        ]
    checks = _Checks(receipt, lease)
    found = [
        ReceiptCheck("encoding", True, f"{len(data)} bytes, canonical"),
        run_check("seal", lambda: checks.seal(sealed)),
    ]
    steps = (
        checks.order, checks.quote, checks.lease, checks.certificates, checks.claim, checks.work, checks.auditors,
        checks.payment, checks.charge, checks.settlement,
    )  # fmt: skip
    return found + [run_check(name, step) for name, step in zip(CHECKS[2:], steps, strict=True)]


def intact(checks: list[ReceiptCheck]) -> bool:
    """Whether `verify` found nothing wrong: the file is what these keys signed, whosever they are."""
    return tuple(check.name for check in checks) == CHECKS and all(check.ok for check in checks)


def run_check(name: str, step: Callable[[], str]) -> ReceiptCheck:
    """What came of `step`, which returns what it found, or raises WrongError or FallowError."""
    try:
        return ReceiptCheck(name, True, step())
    except FallowError as error:
        return ReceiptCheck(name, False, error.what)
    except MissingError as missing:
        return ReceiptCheck(name, False, f"it lacks {missing}", missing=True)
    except WrongError as wrong:
        return ReceiptCheck(name, False, str(wrong))


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise WrongError(otherwise)


class _Checks:
    """The checks of one receipt. `agreed` is the lease as its body reads; that both sides signed it is the check
    "lease"."""

    def __init__(self, receipt: Receipt, agreed: Lease) -> None:
        self._receipt = receipt
        self._agreed = agreed
        self._lease_id = hash_document(agreed, agreed.bank)

    def seal(self, sealed: SealedReceipt) -> str:
        made = self._open(sealed.seal, ReceiptSeal, self._agreed.requester)
        _require(made.body == blake3(sealed.body).digest(), "the seal is over another receipt")
        return f"by the requester, {_account(self._agreed.requester)}"

    def order(self) -> str:
        order = self._order()
        _require(order.job == self._receipt.job, "the order is for another job")
        _require(order.verify == self._receipt.policy, "the policy that is shown is not the one that was ordered")
        return f"{order.units} units of {order.kind}, for {to_text('job', order.job)}"

    def quote(self) -> str:
        quote, order = self._quote(), self._order()
        _require(quote.order == hash_document(order, self._agreed.bank), "the quote is for another order")
        _require(quote.price_ucr <= order.max_price_ucr, "the price is above the order's limit")
        _require(quote.stake_ucr >= order.min_stake_ucr, "the stake is below the order's minimum")
        return f"{format_money(quote.price_ucr)} per 1,000 units by {_account(quote.provider)}"

    def lease(self) -> str:
        lease, bank = self._agreed, self._agreed.bank
        order, quote = self._order(), self._quote()
        for signed, signer in (
            (self._receipt.lease, lease.requester),
            (self._receipt.provider_signature, lease.provider),
        ):
            _require(self._open(signed, Lease, signer) == lease, "the two sides signed different leases")
        _require(lease.order == hash_document(order, bank), "the lease is for another order")
        _require(lease.quote == hash_document(quote, bank), "the lease is for another quote")
        _require((lease.requester_node, lease.provider_node) == (order.node, quote.node), "the lease names other nodes")
        _require(lease.requester != lease.provider, "the lease is with oneself")
        _require(lease.kind == order.kind, "the lease is for another kind of work")
        _require((lease.price_ucr, lease.stake_ucr) == (quote.price_ucr, quote.stake_ucr), "not the quoted terms")
        _require(lease.starts_ms < lease.ends_ms <= order.ends_ms, "the lease outlasts the order")
        return f"{to_text('lease', self._lease_id)}, at most {format_money(lease.cap_ucr)}, signed by both"

    def certificates(self) -> str:
        lease = self._agreed
        for signed, account, node in (
            (self._receipt.requester_certificate, lease.requester, lease.requester_node),
            (self._receipt.provider_certificate, lease.provider, lease.provider_node),
        ):
            found = read_certificate(signed)
            _require((found.account, found.node) == (account, node), "a certificate for somebody else")
            held = found.issued_ms - SKEW_MS <= self._receipt.made_ms and lease.starts_ms < found.expires_ms
            _require(held, "a certificate that did not hold during the lease")
        return "both nodes spoke for their accounts"

    def claim(self) -> str:
        claim = self._claim()
        return f"number {claim.sequence} of the provider: {claim.units} units in {claim.count} tasks"

    def work(self) -> str:
        receipt, claim = self._receipt, self._claim()
        kind = work_task(receipt, self._agreed.kind).kind
        _require(kind == self._agreed.kind, "a task of another kind than the lease's")
        named = receipt.work.setting if isinstance(receipt.work, NamedLaneWork) else None
        _require(named is None or named.kind == kind, "a lane of another kind than the lease's")
        found = check_path(claim.root, claim.count, receipt.index, work_leaf(receipt), receipt.path)
        _require(found, "the provider's claim does not hold this task with this output")
        _require(work_units(receipt) <= claim.units, "the task has more units than the whole claim")
        if isinstance(receipt.work, TaskWork):
            _require(work_units(receipt) <= receipt.work.task.units, "the task cost more than it was metered at")
        if isinstance(receipt.work, LaneWork) and (task := receipt.work.checked_as) is not None:
            same = (task.params, task.seed) == (receipt.work.params, receipt.work.seed)
            _require(same, "the auditors were given other work")
        return f"output {work_output(receipt).hex()[:16]}, {work_units(receipt)} units"

    def auditors(self) -> str:
        receipt, units = self._receipt, work_units(self._receipt)
        claimed = (work_output(receipt), units)
        names = [self._auditor(evidence) for evidence in receipt.evidence]
        sampled = [self._signer(receipt.sampled)[0]] if receipt.sampled is not None else []
        parties = [self._agreed.requester, self._agreed.provider, *names, *sampled]
        _require(len(set(parties)) == len(parties), "an auditor that is a party, or counted twice")
        _require(not sampled or receipt.verdict == "cleared", "a sample beside other evidence")
        # The meter is part of the answer, but where auditors were given a task in the place of a lane's answer.
        own = isinstance(receipt.work, TaskWork)
        answers = {(one.output, one.units if one.number or own else units) for one in receipt.evidence}
        _require(len(answers) <= 1, "the auditors do not agree")
        match receipt.verdict:
            case "accepted":
                _require(answers == {claimed}, "accepted, but nobody computed the same")
                return f"{len(names)} computed the same: {', '.join(map(_account, names))}"
            case "rejected":
                _require(len(names) >= 2 and claimed not in answers, "rejected, but no two others agree on another")
                return f"{len(names)} agree on another output: {', '.join(map(_account, names))}"
            case "cleared":
                _require(answers <= {claimed}, "cleared, although somebody computed something else")
                if sampled:
                    return f"a sample of it was done again by {_account(sampled[0])}"
                return "nobody else's word on it is here" if not names else f"{len(names)} computed the same"
            case "provisional":
                _require(answers <= {claimed}, "not rejected yet, although somebody computed something else")
                return "not final yet"
            case "voided":
                return "never checked, too late, or of a provider that was caught elsewhere"

    def payment(self) -> str:
        receipt, lease = self._receipt, self._agreed
        promised = self._promised_ucr()
        _require(promised <= lease.cap_ucr, "the voucher is above the lease's cap")
        if receipt.units_final:
            expected = min(cost_ucr(receipt.units_final, lease.price_ucr), lease.cap_ucr)
            _require(promised == expected, f"promised {promised} ucr; the final work is worth {expected} ucr")
        if receipt.owed:
            units = max(work_units(receipt), receipt.units_final)
            least = min(cost_ucr(units, lease.price_ucr), lease.cap_ucr)
            _require(promised >= least, "the work is final, but the voucher does not cover it")
        return f"{format_money(promised)} promised for all final work under the lease"

    def charge(self) -> str:
        receipt = self._receipt
        if receipt.charge is None:
            return "nothing was charged"
        charge = self._open(receipt.charge, Verdict, self._agreed.requester)
        answers = {evidence.output for evidence in receipt.evidence}
        _require(receipt.verdict == "rejected", "charged, although the work was not rejected")
        _require(charge.lease == self._lease_id, "a charge under another lease")
        _require(charge.task == task_id(work_task(receipt, self._agreed.kind)), "a charge about another task")
        _require(charge.claimed == work_output(receipt), "charged with an output that was not claimed")
        _require({charge.accepted} == answers, "the auditors found something else than the charge says")
        _require(charge.slash_ucr <= self._agreed.stake_ucr, "the charge is above the stake")
        return f"{format_money(charge.slash_ucr)} of the provider's stake"

    def settlement(self) -> str:
        receipt, lease = self._receipt, self._agreed
        if receipt.settlement is None:
            return "not settled yet"
        done = self._open(receipt.settlement, Settlement, lease.bank)
        _require(done.lease == self._lease_id, "a settlement of another lease")
        _require(done.slashed_ucr <= lease.stake_ucr, "more was slashed than staked")
        _require(done.paid_ucr <= self._promised_ucr(), "more was paid than promised")
        whole = done.paid_ucr + done.refunded_ucr
        _require(whole == lease.cap_ucr if done.closed_ms else whole <= lease.cap_ucr, "the escrow does not add up")
        state = "closed" if done.closed_ms else "open"
        parts = ((done.paid_ucr, "paid"), (done.refunded_ucr, "given back"), (done.slashed_ucr, "slashed"))
        return ", ".join([state, *(f"{format_money(amount)} {what}" for amount, what in parts)])

    def _promised_ucr(self) -> int:
        """What the last voucher promises in all."""
        if self._receipt.voucher is None:
            return 0
        voucher = self._open(self._receipt.voucher, Voucher, self._agreed.requester)
        _require(voucher.lease == self._lease_id, "a voucher for another lease")
        return voucher.cumulative_ucr

    def _open(self, signed: Signed, kind: type[D], signer: bytes) -> D:
        return open_signed(signed, kind, self._agreed.bank, signer)

    def _order(self) -> Order:
        return self._open(self._receipt.order, Order, self._agreed.requester)

    def _quote(self) -> Quote:
        return self._open(self._receipt.quote, Quote, self._agreed.provider)

    def _claim(self) -> ClaimRoot:
        claim = self._open(self._receipt.claim, ClaimRoot, self._agreed.provider)
        _require(claim.lease == self._lease_id, "a claim under another lease")
        return claim

    def _auditor(self, evidence: Evidence) -> bytes:
        """Check one auditor's commitment; -> its account."""
        signer, claim = self._signer(evidence)
        task, setting = work_task(self._receipt, self._agreed.kind), work_setting(self._receipt)
        held = evidence_holds(evidence, task, claim.root, claim.count, setting)
        _require(held, "an auditor's claim does not hold the answer")
        return signer

    def _signer(self, evidence: Evidence) -> tuple[bytes, ClaimRoot]:
        lease, claim = read_evidence(evidence, self._agreed.bank)
        _require(lease.kind == self._agreed.kind, "an auditor for another kind of work")
        return lease.provider, claim


def read_evidence(evidence: Evidence, bank: bytes) -> tuple[Lease, ClaimRoot]:
    """An auditor's lease and claim, both signed by it. What the claim is about is not looked at. Raises PeerFault E1101
    or E1102 otherwise."""
    lease = decode(Lease, evidence.lease.body)
    open_signed(evidence.lease, Lease, bank, lease.provider)
    claim = open_signed(evidence.claim, ClaimRoot, bank, lease.provider)
    if claim.lease != hash_document(lease, bank):
        raise fail("E1101", "an auditor's claim under another lease")
    return lease, claim


def _account(account: bytes) -> str:
    return f"0x{account.hex()}"
