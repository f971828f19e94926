"""What must hold at every step of every simulated world, whatever fails and whoever cheats.

The referee sees all that is signed, every effect of the steward's brain and every row of the bank, and keeps accounts
of its own. It never helps: a world without a referee runs the same way. Who cheats is known to it and to nobody
else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fallow.rules import trust
from fallow.rules.escrow import EscrowRow, Move, Place, faults, totals
from fallow.rules.provider.events import ProviderState
from fallow.rules.steward import events as t
from fallow.rules.steward.state import Mark, State
from fallow.sim.ledger import MemoryLedger
from fallow.sim.work import honest_output
from fallow.sim.world import Violation, World
from fallow.units import cost_ucr
from fallow.wire.claims import output_hash, task_id
from fallow.wire.documents import ClaimRoot, Document, Lease, Voucher
from fallow.wire.tasks import TaskSpec


class Holder(Protocol):
    """A process with blobs."""

    node: bytes
    blobs: set[bytes]


class Referee:
    """All that is known to be true of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger: MemoryLedger | None = None
        self.minted_ucr = 0
        self.cheats: set[bytes] = set()
        self.holders: dict[bytes, Holder] = {}
        self.hiding: set[bytes] = set()
        self.lost_after_ms = 0
        self.names: dict[bytes, str] = {}
        self.leases: dict[bytes, tuple[bytes, Lease]] = {}
        self.budgets: dict[bytes, int] = {}
        self.policies: dict[bytes, trust.Policy] = {}
        self.vouchers: dict[bytes, int] = {}
        self.receipts: dict[tuple[bytes, bytes], t.KeepReceipt] = {}
        self.paid_tasks: set[tuple[bytes, bytes]] = set()
        self.final_units: dict[bytes, int] = {}
        self.checked: dict[bytes, int] = {}
        self.ended: dict[bytes, t.JobEnded] = {}
        self.roots: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        self.claimed_tasks: dict[tuple[bytes, bytes], int] = {}
        self.specs: dict[bytes, TaskSpec] = {}
        self.accepted_ucr: dict[tuple[bytes, bytes], int] = {}
        self.last_heard: dict[bytes, int] = {}
        self.since_ms = 0
        self.caught: set[bytes] = set()
        self.lost: set[bytes] = set()
        self._moves_seen = 0
        self._out: dict[bytes, dict[tuple[Place, bytes], int]] = {}
        world.checks.append(self.books)

    def wrong(self, what: str) -> Violation:
        """To be raised."""
        return Violation(f"at {self.world.elapsed_ms} ms: {what}")

    def name(self, key: bytes) -> str:
        """A person's name, or the beginning of an id."""
        return self.names.get(key, key.hex()[:8])

    # what is signed ---------------------------------------------------------------------------------------------------

    def signing(self, account: bytes, document: Document) -> None:
        """Signed words never contradict each other, and promise no more than was earned."""
        if isinstance(document, Voucher):
            self._promised(document)
        elif isinstance(document, ClaimRoot) and account not in self.cheats:
            key = document.lease, document.sequence
            before = self.roots.setdefault(key, (document.root, b""))
            if before[0] != document.root:
                raise self.wrong(f"honest {self.name(account)} signed two roots as number {document.sequence}")

    def _promised(self, voucher: Voucher) -> None:
        lease = self.leases[voucher.lease][1]
        earned = cost_ucr(self.final_units.get(voucher.lease, 0), lease.price_ucr)
        if voucher.cumulative_ucr > min(earned, lease.cap_ucr):
            raise self.wrong(f"a voucher over {voucher.cumulative_ucr} for work worth {earned}, cap {lease.cap_ucr}")
        self.vouchers[voucher.lease] = max(self.vouchers.get(voucher.lease, 0), voucher.cumulative_ucr)

    def claiming(self, account: bytes, task: bytes, root: ClaimRoot) -> None:
        """An honest provider claims a task once."""
        if account not in self.cheats and task:
            sequence = self.claimed_tasks.setdefault((root.lease, task), root.sequence)
            if sequence != root.sequence:
                raise self.wrong(f"honest {self.name(account)} claimed one task twice")

    # the provider -----------------------------------------------------------------------------------------------------

    def provider_turn(self, account: bytes, state: ProviderState) -> None:
        """What was promised to a provider is never forgotten."""
        if account in self.cheats:
            return
        for lease_id, lease in state.leases.items():
            key = state.terms.node, lease_id
            if lease.voucher_ucr < self.accepted_ucr.get(key, 0):
                raise self.wrong(f"{self.name(account)} holds a lower voucher than before")
            self.accepted_ucr[key] = lease.voucher_ucr

    def held_by(self, node: bytes) -> set[bytes]:
        """The blobs that a node hands out."""
        holder = self.holders.get(node)
        return holder.blobs if holder is not None and node not in self.hiding else set()

    # the steward ------------------------------------------------------------------------------------------------------

    def proposing(self, job: bytes, lease: bytes, terms: Lease) -> None:
        """The steward is about to sign a lease for a job."""
        self.leases[lease] = job, terms

    def assigning(self, task: bytes, spec: TaskSpec) -> None:
        """The steward asks for a task."""
        self.specs[task] = spec

    def heard(self, node: bytes) -> None:
        """The steward has heard from a node."""
        self.last_heard[node] = self.world.now_ms

    def lives(self, state: State) -> None:
        """The steward starts: whom it could not hear while it was away is nobody's fault. What it decided in the moment
        of its death it decided then."""
        self.since_ms = self.world.now_ms
        for job in state.jobs.values():
            self.lost |= {job.seats[n].lease for n in job.live if job.seats[n].mark is Mark.LOST}

    def replayed(self, lost: State, found: State) -> None:
        """The log gives back exactly what the process knew."""
        if lost != found:
            raise self.wrong("replaying the steward's log gave another state than the one that was lost")

    def steward_turn(self, state: State, effects: Iterable[t.StewardEffect]) -> None:
        """After every transition of the steward's brain."""
        self.records(effects)
        for account, standing in state.standings.items():
            if standing.banned and account not in self.cheats:
                raise self.wrong(f"honest {self.name(account)} was banned")
            if standing.banned:
                self.caught.add(account)
        for job in state.jobs.values():
            for number in job.live:
                seat = job.seats[number]
                if seat.mark is Mark.LOST and seat.lease not in self.lost:
                    self.lost.add(seat.lease)
                    self._lost(seat.node)
            if job.committed_ucr() > job.spec.budget_ucr:
                raise self.wrong(f"leases of {job.committed_ucr()} on a budget of {job.spec.budget_ucr}")

    def _lost(self, node: bytes) -> None:
        silent_ms = self.world.now_ms - max(self.last_heard.get(node, 0), self.since_ms)
        if silent_ms < self.lost_after_ms:
            raise self.wrong(f"{self.name(node)} was given up after {silent_ms} ms")

    def records(self, effects: Iterable[t.StewardEffect]) -> None:
        """Receipts and outcomes; saying one again after a restart must say the same."""
        for effect in effects:
            match effect:
                case t.KeepReceipt():
                    self._receipt(effect)
                case t.JobEnded():
                    before = self.ended.setdefault(effect.job, effect)
                    if before != effect:
                        raise self.wrong("a job ended twice, differently")
                case _:
                    pass

    def _receipt(self, receipt: t.KeepReceipt) -> None:
        key = receipt.lease, receipt.claim_hash
        before = self.receipts.get(key)
        if before is not None:
            if before != receipt:
                raise self.wrong("two receipts for one claim contradict each other")
            return
        self.receipts[key] = receipt
        self.final_units[receipt.lease] = self.final_units.get(receipt.lease, 0) + receipt.units
        policy = self.policies[receipt.job]
        account = receipt.terms.provider
        if receipt.spec is not None and receipt.output is not None:
            self._task_receipt(receipt, receipt.spec, policy)
        if receipt.check == "none" and policy.checks:
            raise self.wrong("a claim is final without a check")
        if receipt.check == "cleared" and not self.checked.get(account, 0):
            raise self.wrong(f"a claim of {self.name(account)} was cleared, but nothing of it was ever checked")
        if receipt.check in ("checked", "sampled"):
            self.checked[account] = self.checked.get(account, 0) + 1

    def _task_receipt(self, receipt: t.KeepReceipt, spec: TaskSpec, policy: trust.Policy) -> None:
        assert receipt.output is not None
        answer = bytes(output_hash(receipt.output))
        task = bytes(task_id(spec))
        if task not in self.specs:
            raise self.wrong("a receipt for a task that nobody was given")
        if (receipt.lease, task) in self.paid_tasks:
            raise self.wrong("one task is final twice under one lease")
        self.paid_tasks.add((receipt.lease, task))
        if receipt.units != spec.units:
            raise self.wrong("a receipt for more units than the task has")
        if receipt.check == "sampled" and not receipt.output.parts and answer != output_hash(honest_output(spec)):
            raise self.wrong(f"{self.name(receipt.terms.provider)} was paid for a false audit")
        if receipt.check != "checked":
            return
        voices = {receipt.terms.provider} | {other.account for other in receipt.agreeing}
        if len(voices) < policy.quorum:
            raise self.wrong(f"a claim counts as checked with {len(voices)} of {policy.quorum} voices")
        if answer != output_hash(honest_output(spec)):
            raise self.wrong(f"a wrong result of {self.name(receipt.terms.provider)} counts as checked")

    # the books --------------------------------------------------------------------------------------------------------

    def books(self) -> None:
        """After every step that moved money: a pass over all rows, and over the moves against a count of our own."""
        ledger = self.ledger
        if ledger is None or len(ledger.journal) == self._moves_seen:
            return
        for move in ledger.journal[self._moves_seen :]:
            self._moved(move)
        self._moves_seen = len(ledger.journal)
        found = faults(ledger.rows)
        if found:
            raise self.wrong("; ".join(found))
        there = totals(ledger.rows.values())
        if there.minted_ucr != self.minted_ucr or there.sum_ucr != self.minted_ucr:
            raise self.wrong(f"{there.sum_ucr} ucr are there, {self.minted_ucr} were minted")
        spent: dict[bytes, int] = {}
        for row in ledger.rows.values():
            if isinstance(row, EscrowRow):
                self._escrow(row)
                job = self.leases[row.lease][0]
                spent[job] = spent.get(job, 0) + row.locked_ucr + row.paid_ucr
        for job, amount in spent.items():
            if amount > self.budgets[job]:
                raise self.wrong(f"{amount} ucr locked or paid on a budget of {self.budgets[job]}")

    def _moved(self, move: Move) -> None:
        if move.debit.place is Place.ESCROW:
            out = self._out.setdefault(move.debit.id, {})
            where = move.credit.place, move.credit.id
            out[where] = out.get(where, 0) + move.amount_ucr

    def _escrow(self, row: EscrowRow) -> None:
        if row.lease not in self.leases:
            raise self.wrong("an escrow for a lease that the requester never signed")
        out = self._out.get(row.lease, {})
        paid = out.get((Place.AVAILABLE, row.provider), 0)
        back = out.get((Place.AVAILABLE, row.requester), 0)
        if paid > self.vouchers.get(row.lease, 0):
            raise self.wrong(f"{paid} ucr paid, {self.vouchers.get(row.lease, 0)} promised")
        if paid != row.paid_ucr or paid + back > row.cap_ucr or paid + back != sum(out.values()):
            raise self.wrong(f"{paid} ucr paid and {back} given back of {row.cap_ucr}; the row says {row.paid_ucr}")
        if row.slashed_ucr and row.provider not in self.cheats:
            raise self.wrong(f"honest {self.name(row.provider)} was slashed")

    def settled(self) -> None:
        """When everything is over: the bank's last word is what the receipts say."""
        assert self.ledger is not None
        for row in self.ledger.rows.values():
            if not isinstance(row, EscrowRow):
                continue
            owed = sum(r.paid_ucr for key, r in self.receipts.items() if key[0] == row.lease)
            if row.paid_ucr > owed:
                raise self.wrong(f"{row.paid_ucr} ucr paid under a lease whose receipts say {owed}")
            if row.paid_ucr < owed and row.provider not in self.cheats:
                raise self.wrong(f"honest {self.name(row.provider)} earned {owed} and was paid {row.paid_ucr}")
