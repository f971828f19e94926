"""The pool's books as pure double-entry rules: accounts, escrow, vouchers, stake and slashing.

    facts = examine(request, bank)                  signatures and hashes, without state
    rows = load(touched(request, caller, facts))    then load(related(rows))
    outcome = transition(rows, request, caller, now_ms, facts, terms)
    write(outcome.changed), answer with outcome.answer

The same rules run in the memory home (`sim/ledger.py`) and the SQL home (`adapters/ledger_sql.py`).
"""

from fallow.rules.escrow.books import Totals, balance_of, faults, imbalance_ucr, settlement_of, totals
from fallow.rules.escrow.facts import UNREAD, Facts, Refused, examine, token_hash
from fallow.rules.escrow.ledger import refuse, related, touched, transition
from fallow.rules.escrow.rows import (
    POOL,
    ROWS,
    STAKERS,
    AccountRow,
    Book,
    ChargeStage,
    EscrowRow,
    Move,
    NodeRow,
    Outcome,
    PendingRow,
    Place,
    PoolTerms,
    Row,
    RowKey,
    StakersRow,
    Table,
    VerdictRow,
    account_key,
    escrow_key,
    key_of,
    node_key,
    pending_key,
    verdict_key,
)
from fallow.rules.escrow.stakers import stakers_of
from fallow.rules.escrow.verdicts import charge_of

__all__ = [
    "POOL", "ROWS", "STAKERS", "UNREAD", "AccountRow", "Book", "ChargeStage", "EscrowRow", "Facts", "Move", "NodeRow",
    "Outcome", "PendingRow", "Place", "PoolTerms", "Refused", "Row", "RowKey", "StakersRow", "Table", "Totals",
    "VerdictRow", "account_key", "balance_of", "charge_of", "escrow_key", "examine", "faults", "imbalance_ucr",
    "key_of", "node_key", "pending_key", "refuse", "related", "settlement_of", "stakers_of", "token_hash", "totals",
    "touched", "transition", "verdict_key",
]  # fmt: skip
