"""The Ledger port in memory: the escrow rules and a dictionary. Nothing survives the process; the simulator keeps the
object across a crash of its bank, as a disk would."""

from __future__ import annotations

from collections.abc import Callable

from fallow.ports import Entropy
from fallow.rules.escrow import (
    AccountRow,
    ChargeStage,
    EscrowRow,
    Move,
    NodeRow,
    PendingRow,
    PoolTerms,
    Refused,
    Row,
    RowKey,
    VerdictRow,
    account_key,
    balance_of,
    charge_of,
    escrow_key,
    examine,
    faults,
    node_key,
    pending_key,
    refuse,
    related,
    settlement_of,
    totals,
    touched,
    transition,
    verdict_key,
)
from fallow.wire.documents import Settlement, Signed
from fallow.wire.ledger import BalanceOf, Books, DrawAuditors, OpenCharge
from fallow.wire.messages import Message

SEED_BYTES = 32


class MemoryLedger:
    """One pool's books. `seal` signs settlements with the bank's account key. With `audit`, every transition is
    followed by a pass over all rows, and a broken invariant raises AssertionError at the request that broke it.

    `rows` and `journal` (every double entry so far, in order) are there to be looked at."""

    def __init__(
        self, terms: PoolTerms, entropy: Entropy, seal: Callable[[Settlement], Signed], *, audit: bool = False
    ) -> None:
        self.terms = terms
        self.rows: dict[RowKey, Row] = {}
        self.journal: list[Move] = []
        self._entropy, self._seal, self._audit = entropy, seal, audit

    async def apply(self, request: Message, caller: bytes, now_ms: int) -> Message:
        """One LedgerRequest. TypeError for any other message."""
        seed = self._entropy.draw(SEED_BYTES) if isinstance(request, DrawAuditors) else b""
        facts = examine(request, self.terms.bank, seed)
        if isinstance(facts, Refused):
            return refuse(facts)
        rows: dict[RowKey, Row | None] = {}
        missing = touched(request, caller, facts)
        while missing:
            rows |= {key: self.rows.get(key) for key in missing}
            missing = related(rows.values()) - rows.keys()
        outcome = transition(rows, request, caller, now_ms, facts, self.terms)
        self.rows |= outcome.changed
        self.journal += outcome.moves
        if self._audit:
            found = faults(self.rows)
            assert not found, f"after {type(request).__name__}: {'; '.join(found)}"
        return outcome.answer

    async def balance(self, account: bytes, now_ms: int = 0) -> BalanceOf:
        """What `account` has; zeros for one that nobody opened."""
        row, pending = self.rows.get(account_key(account)), self.rows.get(pending_key(account))
        assert row is None or isinstance(row, AccountRow)
        assert pending is None or isinstance(pending, PendingRow)
        charges = (one for one in self.rows.values() if isinstance(one, VerdictRow) and one.is_open)
        charged = sorted(one.lease for one in charges if one.accused == account)
        return balance_of(account, row, pending, now_ms, tuple(charged))

    async def speaker(self, node: bytes, now_ms: int) -> bytes | None:
        """The account that `node` speaks for at `now_ms`."""
        row = self.rows.get(node_key(node))
        return row.account if isinstance(row, NodeRow) and now_ms < row.expires_ms else None

    async def settlement(self, lease: bytes) -> Signed | None:
        """The bank's signed word on a lease; None for one that was never opened here."""
        row = self.rows.get(escrow_key(lease))
        return self._seal(settlement_of(row)) if isinstance(row, EscrowRow) else None

    async def charge(self, lease: bytes) -> OpenCharge | None:
        """The charge under a lease that is not decided yet."""
        escrow = self.rows.get(escrow_key(lease))
        row = self.rows.get(verdict_key(lease, escrow.ground)) if isinstance(escrow, EscrowRow) else None
        return charge_of(row) if isinstance(row, VerdictRow) and row.is_open else None

    async def appeals(self) -> tuple[bytes, ...]:
        """The leases whose charges wait for the referee."""
        charges = (row for row in self.rows.values() if isinstance(row, VerdictRow))
        return tuple(sorted(row.lease for row in charges if row.stage == ChargeStage.APPEALED))

    async def books(self) -> Books:
        """The whole in one line. Costs a pass over all rows."""
        return Books(self.terms.bank, *totals(self.rows.values()))

    async def dump(self) -> dict[RowKey, Row]:
        """All rows, to compare homes with each other."""
        return dict(self.rows)
