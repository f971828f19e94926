"""The words of the books: rows, keys, and the places where money lies.

A home (memory, SQL) keeps rows by `RowKey` and nothing else. Money lies in seven kinds of *place* (`Place`), each one
field of one row, and moves between two of them at a time; it comes from the mint, the only place that may be overdrawn,
and by how much is `PoolRow.minted_ucr`. What is neither here nor there is a two-phase transfer: an escrow is reserved
at opening, posted in parts by vouchers and voided at closing; stake on its way out and bonds held for an audit are
`Pending` and post by themselves in time.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

import msgspec

from fallow.units import MS_PER_S
from fallow.wire.messages import Message

MAX_PENDING = 256
"""Two-phase transfers that one account may have under way; more are refused until the oldest has expired."""
MAX_NODES = 1024
"""Nodes that one account may bind."""


class PoolTerms(msgspec.Struct, frozen=True):
    """A pool's policy. `bank` is the account whose books these are, `operator` the one that may mint and invite."""

    bank: bytes
    operator: bytes
    welcome_ucr: int = 0
    """Granted to a new account that comes with an invitation, to spend on work: it cannot be sent to others."""
    invited_only: bool = False
    """Whether a new account needs an invitation that is good."""
    unbonding_ms: int = 24 * 3600 * MS_PER_S
    """How long stake stays slashable on its way out, and how long after a lease's end its provider can be charged."""
    grace_ms: int = 30 * MS_PER_S
    """How long after a lease's end only the provider may close, so that it can redeem its last voucher."""
    hold_ms: int = 600 * MS_PER_S
    """How long a bond is held after an audit was drawn, although the provider closed the lease."""
    longest_lease_ms: int = 30 * 24 * 3600 * MS_PER_S
    min_witness_stake_ucr: int = 1
    max_accounts: int = 1_000_000


class Table(StrEnum):
    """Where a row is kept."""

    POOL = "pool"
    ACCOUNT = "accounts"
    NODE = "nodes"
    TOKEN = "tokens"  # noqa: S105 - a table's name
    ESCROW = "escrows"
    PENDING = "pending"
    DONE = "operations"
    DRAW = "draws"
    VERDICT = "verdicts"


class RowKey(NamedTuple):
    """A row's address. `id` is made by the functions below."""

    table: Table
    id: bytes


class PoolRow(msgspec.Struct, frozen=True):
    """What was minted in all, and what the pool earned from slashing."""

    minted_ucr: int = 0
    purse_ucr: int = 0
    accounts: int = 0


class AccountRow(msgspec.Struct, frozen=True):
    """One account. `stake_ucr` is free stake. `escrowed_ucr` and `bonded_ucr` repeat what lies in its open escrows (as
    requester) and behind its open leases (as provider); `unbonding_ucr` and `held_ucr` what is in its PendingRow. The
    totals earned and slashed stop at MAX_UCR. So much of what it owns that `tied_ucr` is left cannot be sent to others:
    the welcome grant, less what was spent on work or lost since."""

    account: bytes
    available_ucr: int = 0
    stake_ucr: int = 0
    unbonding_ucr: int = 0
    held_ucr: int = 0
    escrowed_ucr: int = 0
    bonded_ucr: int = 0
    earned_ucr: int = 0
    slashed_ucr: int = 0
    welcomed: bool = False
    nodes: int = 0
    tied_ucr: int = 0

    @property
    def owned_ucr(self) -> int:
        """All its money, wherever it lies."""
        free = self.available_ucr + self.stake_ucr + self.unbonding_ucr + self.held_ucr
        return free + self.escrowed_ucr + self.bonded_ucr


class NodeRow(msgspec.Struct, frozen=True):
    """`node` speaks for `account` until `expires_ms`."""

    node: bytes
    account: bytes
    issued_ms: int
    expires_ms: int


class TokenRow(msgspec.Struct, frozen=True):
    """An invitation, by its hash."""

    token_hash: bytes
    uses_left: int
    expires_ms: int


class EscrowRow(msgspec.Struct, frozen=True):
    """One lease's money: `locked_ucr + paid_ucr + refunded_ucr == cap_ucr` always. `paid_ucr` is also the highest
    voucher redeemed. `bond_ucr` is the stake still locked behind it, `audit_until_ms` when the last audit ends."""

    lease: bytes
    requester: bytes
    provider: bytes
    cap_ucr: int
    stake_ucr: int
    ends_ms: int
    opened_ms: int
    locked_ucr: int = 0
    bond_ucr: int = 0
    paid_ucr: int = 0
    refunded_ucr: int = 0
    slashed_ucr: int = 0
    audit_until_ms: int = 0
    closed_ms: int = 0


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A reserved transfer that posts by itself at `due_ms`: stake on its way out (`lease` is empty) to the available
    balance, or the held bond of `lease` to the free stake."""

    lease: bytes
    amount_ucr: int
    due_ms: int


class PendingRow(msgspec.Struct, frozen=True):
    """An account's pending transfers, oldest first."""

    account: bytes
    entries: tuple[Pending, ...] = ()


class DoneRow(msgspec.Struct, frozen=True):
    """The answer that a caller's operation id got, for good. `request` is the hash of what was asked; `reason` is ""
    when it took effect."""

    caller: bytes
    operation: bytes
    request: bytes
    reason: str
    detail: str


class DrawRow(msgspec.Struct, frozen=True):
    """The randomness that belongs to a claim."""

    claim: bytes
    lease: bytes
    seed: bytes


class VerdictRow(msgspec.Struct, frozen=True):
    """A lease was judged over `ground` (a task, or a sequence number)."""

    lease: bytes
    ground: bytes
    verdict: bytes
    slashed_ucr: int


Row = PoolRow | AccountRow | NodeRow | TokenRow | EscrowRow | PendingRow | DoneRow | DrawRow | VerdictRow

ROWS: dict[Table, type[Row]] = {
    Table.POOL: PoolRow,
    Table.ACCOUNT: AccountRow,
    Table.NODE: NodeRow,
    Table.TOKEN: TokenRow,
    Table.ESCROW: EscrowRow,
    Table.PENDING: PendingRow,
    Table.DONE: DoneRow,
    Table.DRAW: DrawRow,
    Table.VERDICT: VerdictRow,
}

_KEYS = {Table.POOL: 0, Table.DONE: 2, Table.VERDICT: 2}
_KEYED = {row: (table, row.__struct_fields__[: _KEYS.get(table, 1)]) for table, row in ROWS.items()}
"""How many of its first fields a row's key is made of: one, but for these."""
POOL = RowKey(Table.POOL, b"")


def account_key(account: bytes) -> RowKey:
    """Of an AccountRow."""
    return RowKey(Table.ACCOUNT, account)


def pending_key(account: bytes) -> RowKey:
    """Of a PendingRow."""
    return RowKey(Table.PENDING, account)


def node_key(node: bytes) -> RowKey:
    """Of a NodeRow."""
    return RowKey(Table.NODE, node)


def token_key(token_hash: bytes) -> RowKey:
    """Of a TokenRow."""
    return RowKey(Table.TOKEN, token_hash)


def escrow_key(lease: bytes) -> RowKey:
    """Of an EscrowRow."""
    return RowKey(Table.ESCROW, lease)


def done_key(caller: bytes, operation: bytes) -> RowKey:
    """Of a DoneRow. Each caller has its own ids, so that nobody can use up the one that another is about to use."""
    return RowKey(Table.DONE, caller + operation)


def draw_key(claim: bytes) -> RowKey:
    """Of a DrawRow."""
    return RowKey(Table.DRAW, claim)


def verdict_key(lease: bytes, ground: bytes) -> RowKey:
    """Of a VerdictRow."""
    return RowKey(Table.VERDICT, lease + ground)


def key_of(row: Row) -> RowKey:
    """Where a row belongs: its key is made of its first fields."""
    table, fields = _KEYED[type(row)]
    return RowKey(table, b"".join(getattr(row, field) for field in fields))


class Place(Enum):
    """A kind of place where money lies: the row's table and field. MINT alone counts what left it."""

    MINT = (Table.POOL, "minted_ucr")
    PURSE = (Table.POOL, "purse_ucr")
    AVAILABLE = (Table.ACCOUNT, "available_ucr")
    STAKE = (Table.ACCOUNT, "stake_ucr")
    UNBONDING = (Table.ACCOUNT, "unbonding_ucr")
    HELD = (Table.ACCOUNT, "held_ucr")
    ESCROW = (Table.ESCROW, "locked_ucr")
    BOND = (Table.ESCROW, "bond_ucr")

    def __init__(self, table: Table, field: str) -> None:
        self.table, self.field = table, field


class Book(NamedTuple):
    """One place: `id` is an account, a lease, or b"" for the pool's own."""

    place: Place
    id: bytes


class Move(NamedTuple):
    """A double entry: `amount_ucr` leaves `debit` and arrives at `credit`."""

    debit: Book
    credit: Book
    amount_ucr: int


class Outcome(NamedTuple):
    """What a request changes: rows to be written (all or none), the double entries that explain every change of money
    in them, and the answer."""

    changed: dict[RowKey, Row]
    moves: tuple[Move, ...]
    answer: Message
