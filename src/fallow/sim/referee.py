"""What must hold in every simulated world, whatever fails and whoever cheats.

The referee sees all that is signed, all that is asked and told between nodes, every write of the steward and every row
of the bank, and keeps accounts of its own. It never helps: a world without a referee runs the same way. Who cheats is
known to it and to nobody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fallow.rules import trust
from fallow.rules.escrow import EscrowRow, Move, PendingRow, Place, faults, totals
from fallow.rules.provider.state import LeaseEntry
from fallow.rules.steward import events as t
from fallow.sim.ledger import MemoryLedger
from fallow.sim.work import honest_output
from fallow.units import cost_ucr
from fallow.wire import codec
from fallow.wire.claims import output_hash, task_id
from fallow.wire.documents import ClaimRoot, Document, Lease, Signed, Voucher
from fallow.wire.eip712 import hash_document
from fallow.wire.local import UNCHECKED, JobView
from fallow.wire.messages import AssignTask, Claimed, Message
from fallow.wire.tasks import TaskSpec


class Violation(AssertionError):
    """Something happened that must never happen, whatever the faults."""


class Referee:
    """All that is known to be true of one world. What breaks a rule is kept in `found` and raised by `look`: where it
    happens, a node might take it for an error of its own."""

    def __init__(self, elapsed_ms: Callable[[], int], lost_after_ms: int) -> None:
        self.elapsed_ms, self.lost_after_ms = elapsed_ms, lost_after_ms
        self.found: list[str] = []
        self.ledger: MemoryLedger | None = None
        self.bank = b""
        self.minted_ucr = 0
        self.cheats: set[bytes] = set()
        self.names: dict[bytes, str] = {}
        self.leases: dict[bytes, Lease] = {}
        self.policies: dict[bytes, trust.Policy | None] = {}
        self.vouchers: dict[bytes, int] = {}
        self.receipts: dict[tuple[bytes, bytes], t.KeepReceipt] = {}
        self.ended: dict[bytes, t.JobEnded] = {}
        self.caught: set[bytes] = set()
        self.specs: dict[bytes, TaskSpec] = {}
        self._paid_tasks: set[tuple[bytes, bytes]] = set()
        self._final_units: dict[bytes, int] = {}
        self._checked: dict[bytes, int] = {}
        self._roots: dict[tuple[bytes, int], bytes] = {}
        self._claimed: dict[tuple[bytes, bytes], int] = {}
        self._accepted_ucr: dict[tuple[bytes, bytes], int] = {}
        self._silent_since: dict[bytes, int] = {}
        self._lost: set[bytes] = set()
        self._moves_seen = 0
        self._out: dict[bytes, dict[tuple[Place, bytes], int]] = {}

    def wrong(self, what: str) -> None:
        """A rule is broken."""
        self.found.append(f"at {self.elapsed_ms()} ms: {what}")

    def look(self) -> None:
        """Raises Violation for what was found."""
        if self.found:
            raise Violation("; ".join(self.found[:3]))

    def name(self, key: bytes) -> str:
        """A person's name, or the beginning of an id."""
        return self.names.get(key, key.hex()[:8])

    # what is signed and told ------------------------------------------------------------------------------------------

    def signing(self, account: bytes, document: Document) -> None:
        """Signed words never contradict each other, and promise no more than was earned."""
        if isinstance(document, Lease) and document.provider != account:
            self.leases[hash_document(document, self.bank)] = document
        elif isinstance(document, Voucher):
            self._promised(document)
        elif isinstance(document, ClaimRoot) and account not in self.cheats:
            before = self._roots.setdefault((document.lease, document.sequence), document.root)
            if before != document.root:
                self.wrong(f"honest {self.name(account)} signed two roots as number {document.sequence}")

    def _promised(self, voucher: Voucher) -> None:
        lease = self.leases[voucher.lease]
        earned = cost_ucr(self._final_units.get(voucher.lease, 0), lease.price_ucr)
        if voucher.cumulative_ucr > min(earned, lease.cap_ucr):
            self.wrong(f"a voucher over {voucher.cumulative_ucr} for work worth {earned}, cap {lease.cap_ucr}")
        self.vouchers[voucher.lease] = max(self.vouchers.get(voucher.lease, 0), voucher.cumulative_ucr)

    def asked(self, request: Message) -> None:
        """A peer asks a peer."""
        if isinstance(request, AssignTask):
            self.specs[task_id(request.task)] = request.task

    def claiming(self, account: bytes, claimed: Claimed) -> None:
        """An honest provider claims a task once."""
        root = codec.decode(ClaimRoot, claimed.claim.body)
        sequence = self._claimed.setdefault((root.lease, claimed.task), root.sequence)
        if sequence != root.sequence:
            self.wrong(f"honest {self.name(account)} claimed one task twice")

    def accepted(self, node: bytes, voucher: Signed) -> None:
        """An honest provider said that it has a voucher, which it did only if its lease is open."""
        found = codec.decode(Voucher, voucher.body)
        key = node, found.lease
        self._accepted_ucr[key] = max(self._accepted_ucr.get(key, 0), found.cumulative_ucr)

    def provider(self, node: bytes, leases: Mapping[bytes, LeaseEntry]) -> None:
        """What was promised to a provider is never forgotten."""
        for lease, entry in leases.items():
            if entry.phase != "closed" and entry.voucher_ucr < self._accepted_ucr.get((node, lease), 0):
                self.wrong(f"{self.name(node)} has forgotten a voucher")

    # the steward ------------------------------------------------------------------------------------------------------

    def written(self, events: Mapping[str, Sequence[bytes]], cells: Mapping[str, bytes]) -> None:
        """The steward's log was written; saying a thing again after a restart must say the same."""
        for raw in events.get("steward", ()):
            if b"Unobserved" in raw[:24] or b"Observed" in raw[:24] or b"StewardStarted" in raw[:24]:
                self._heard(codec.recall(t.AnyStewardEvent, raw))
        for key, raw in cells.items():
            if key.startswith("receipt/"):
                self._receipt(codec.recall(t.KeepReceipt, raw))
            elif key.startswith("ended/"):
                ended = codec.recall(t.JobEnded, raw)
                if self.ended.setdefault(ended.job, ended) != ended:
                    self.wrong("a job ended twice, differently")

    def _heard(self, event: t.StewardEvent) -> None:
        """What the steward has seen of a node; while it was away itself, nobody is to blame."""
        match event:
            case t.PeerUnobserved(_, node):
                self._silent_since.setdefault(node, self.elapsed_ms())
            case t.PeerObserved(_, node):
                self._silent_since.pop(node, None)
            case _:
                self._silent_since.clear()

    def jobs(self, views: Sequence[JobView]) -> None:
        """What the steward shows of its jobs."""
        for view in views:
            if view.spent_ucr + view.locked_ucr > view.budget_ucr:
                self.wrong(f"{view.spent_ucr} spent and {view.locked_ucr} locked on a budget of {view.budget_ucr}")
            for lease in view.leases:
                if lease.state == "banned":
                    self.caught.add(lease.account)
                    if lease.account not in self.cheats:
                        self.wrong(f"honest {self.name(lease.account)} was banned")
                if lease.state == "lost" and lease.lease not in self._lost:
                    self._lost.add(lease.lease)
                    silent_ms = self.elapsed_ms() - self._silent_since.get(lease.node, self.elapsed_ms())
                    if silent_ms < self.lost_after_ms and lease.node in self._silent_since:
                        self.wrong(f"{self.name(lease.node)} was given up after {silent_ms} ms")
            self._spent(view)

    def _spent(self, view: JobView) -> None:
        rows = self.ledger.rows.values() if self.ledger is not None else ()
        mine = {lease.lease for lease in view.leases}
        spent = sum(r.locked_ucr + r.paid_ucr for r in rows if isinstance(r, EscrowRow) and r.lease in mine)
        if spent > view.budget_ucr:
            self.wrong(f"{spent} ucr locked or paid on a budget of {view.budget_ucr}")

    def _receipt(self, receipt: t.KeepReceipt) -> None:
        key = receipt.lease, receipt.claim_hash
        before = self.receipts.setdefault(key, receipt)
        if before is not receipt:
            if before != receipt:
                self.wrong("two receipts for one claim contradict each other")
            return
        self._final_units[receipt.lease] = self._final_units.get(receipt.lease, 0) + receipt.units
        policy, account = self.policies[receipt.job], receipt.terms.provider
        if receipt.spec is not None:
            self._task_receipt(receipt, receipt.spec, policy)
        else:  # no two batches of a lane are over the same numbers
            self._final_once(receipt.lease, codec.decode(ClaimRoot, receipt.claim.body).root)
        if receipt.check == UNCHECKED and policy is not None:
            self.wrong("a claim is final without a check")
        if receipt.check == "cleared" and not self._checked.get(account, 0):
            self.wrong(f"a claim of {self.name(account)} was cleared, but nothing of it was ever checked")
        if receipt.check in ("checked", "replayed", "sampled"):
            self._checked[account] = self._checked.get(account, 0) + 1

    def _final_once(self, lease: bytes, work: bytes) -> None:
        if (lease, work) in self._paid_tasks:
            self.wrong("the same work is final twice under one lease")
        self._paid_tasks.add((lease, work))

    def _task_receipt(self, receipt: t.KeepReceipt, spec: TaskSpec, policy: trust.Policy | None) -> None:
        assert receipt.output is not None
        answer, task, who = bytes(output_hash(receipt.output)), bytes(task_id(spec)), self.name(receipt.terms.provider)
        if task not in self.specs:
            self.wrong("a receipt for a task that nobody was given")
        self._final_once(receipt.lease, task)
        if receipt.units != spec.units:
            self.wrong("a receipt for more units than the task has")
        if receipt.check == "sampled" and not receipt.output.parts and answer != output_hash(honest_output(spec)):
            self.wrong(f"{who} was paid for a false audit")
        if receipt.check not in ("checked", "replayed"):
            return
        if answer != output_hash(honest_output(spec)):
            self.wrong(f"a wrong result of {who} counts as checked")
        if receipt.check == "replayed":
            return
        voices = {receipt.terms.provider} | {other.account for other in receipt.agreeing}
        quorum = policy.quorum if policy is not None else trust.MAX_QUORUM
        # an auditor's own answer has nobody drawn for it, and its receipt names nobody
        if receipt.seed and len(voices) < quorum:
            self.wrong(f"a claim counts as checked with {len(voices)} of {quorum} voices")

    # the books --------------------------------------------------------------------------------------------------------

    def books(self) -> None:
        """After every request to the bank: a pass over all rows, and over the moves against a count of our own."""
        ledger = self.ledger
        if ledger is None or len(ledger.journal) == self._moves_seen:
            return
        for move in ledger.journal[self._moves_seen :]:
            if move.debit.place is Place.ESCROW:
                self._moved(move)
        self._moves_seen = len(ledger.journal)
        for fault in faults(ledger.rows):
            self.wrong(fault)
        there = totals(ledger.rows.values())
        if there.minted_ucr != self.minted_ucr or there.sum_ucr != self.minted_ucr:
            self.wrong(f"{there.sum_ucr} ucr are there, {self.minted_ucr} were minted")
        for row in ledger.rows.values():
            if isinstance(row, EscrowRow):
                self._escrow(row)

    def _moved(self, move: Move) -> None:
        out = self._out.setdefault(move.debit.id, {})
        where = move.credit.place, move.credit.id
        out[where] = out.get(where, 0) + move.amount_ucr

    def _escrow(self, row: EscrowRow) -> None:
        if row.lease not in self.leases:
            self.wrong("an escrow for a lease that the requester never signed")
        out = self._out.get(row.lease, {})
        paid, back = out.get((Place.AVAILABLE, row.provider), 0), out.get((Place.AVAILABLE, row.requester), 0)
        if paid > self.vouchers.get(row.lease, 0):
            self.wrong(f"{paid} ucr paid, {self.vouchers.get(row.lease, 0)} promised")
        if paid != row.paid_ucr or paid + back > row.cap_ucr or paid + back != sum(out.values()):
            self.wrong(f"{paid} ucr paid and {back} given back of {row.cap_ucr}; the row says {row.paid_ucr}")
        if row.slashed_ucr + row.charged_ucr and row.provider not in self.cheats:
            self.wrong(f"honest {self.name(row.provider)} was charged")

    def settled(self) -> None:
        """When everything is over: the bank's last word is what the receipts say, and no bond is kept."""
        assert self.ledger is not None
        owed: dict[bytes, int] = {}
        for (lease, _), receipt in self.receipts.items():
            owed[lease] = owed.get(lease, 0) + receipt.paid_ucr
        rows = {row.lease: row for row in self.ledger.rows.values() if isinstance(row, EscrowRow)}
        for lease in owed.keys() | rows.keys():
            paid, earned = rows[lease].paid_ucr if lease in rows else 0, owed.get(lease, 0)
            provider = self.leases[lease].provider
            if paid > earned:
                self.wrong(f"{paid} ucr paid under a lease whose receipts say {earned}")
            if paid < earned and provider not in self.cheats:
                self.wrong(f"honest {self.name(provider)} earned {earned} and was paid {paid}")
        for row in self.ledger.rows.values():
            if isinstance(row, PendingRow) and any(any(entry.lease) for entry in row.entries):
                self.wrong(f"a bond of {self.name(row.account)} is held, although nobody complains")
