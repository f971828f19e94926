"""The words of the books: rows, keys, and the places where money lies.

A home (memory, SQL) keeps rows by `RowKey` and nothing else. Money lies in eight kinds of *place* (`Place`), each one
field of one row, and moves between two of them at a time; it comes from the mint, the only place that may be overdrawn,
and by how much is `PoolRow.minted_ucr`. What is neither here nor there is a two-phase transfer: an escrow is reserved
at opening, posted in parts by vouchers and voided at closing; stake on its way out and bonds held for an audit are
`Pending` and post by themselves in time; stake that a charge locked lies in its `VerdictRow` until that is decided.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from fallow.units import MS_PER_S
from fallow.wire.messages import Message

MAX_PENDING = 256
"""Two-phase transfers that one account may have under way; more are refused until the oldest has expired."""
MAX_NODES = 1024
"""Nodes that one account may bind."""


class PoolTerms(msgspec.Struct, frozen=True):
    """A pool's policy. `bank` is the account whose books these are, `operator` the one that may mint and invite,
    `referee` the one that rules on appeals (b"": the operator)."""

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
    drawn: int = 16
    """How many accounts are drawn for a claim; only they can bear witness against it."""
    answer_ms: int = 3600 * MS_PER_S
    """How long somebody who is charged may appeal."""
    ruling_ms: int = 24 * 3600 * MS_PER_S
    """How long the referee has to rule on an appeal; after that the charge falls."""
    referee: bytes = b""


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
    STAKERS = "stakers"


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
    requester) and behind its open leases (as provider), `charged_ucr` what charges against it have locked;
    `unbonding_ucr` and `held_ucr` what is in its PendingRow. `pledged_ucr` of its stake stands behind charges that it
    is a witness of, until `pledged_until_ms` at most; `fined_ucr` it still owes, out of the next stake that is free.
    The totals earned and slashed stop at MAX_UCR. So much of what it owns that `tied_ucr` is left cannot be sent to
    others: the welcome grant, less what was spent on work or lost since."""

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
    charged_ucr: int = 0
    pledged_ucr: int = 0
    pledged_until_ms: int = 0
    fined_ucr: int = 0

    @property
    def owned_ucr(self) -> int:
        """All its money, wherever it lies."""
        return self.live_ucr + self.available_ucr + self.unbonding_ucr + self.escrowed_ucr + self.charged_ucr

    @property
    def live_ucr(self) -> int:
        """The stake that stands behind this account's word: not what is on its way out."""
        return self.stake_ucr + self.bonded_ucr + self.held_ucr


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
    voucher redeemed. `bond_ucr` is the stake still locked behind it, `audit_until_ms` when the last audit ends. While
    a charge is open, `charged_ucr` lies in its VerdictRow, whose ground is `ground` (b"": none is)."""

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
    charged_ucr: int = 0
    ground: bytes = b""


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
    """The randomness that belongs to a claim, and the accounts that it drew, 20 bytes each, first drawn first."""

    claim: bytes
    lease: bytes
    seed: bytes
    drawn: bytes = b""

    @property
    def accounts(self) -> tuple[bytes, ...]:
        return tuple(self.drawn[at : at + 20] for at in range(0, len(self.drawn), 20))


class ChargeStage(IntEnum):
    """How far a charge has come. Those of before there were stages were carried out at once."""

    UPHELD = 0
    CHARGED = 1
    APPEALED = 2
    OVERTURNED = 3


class VerdictRow(msgspec.Struct, frozen=True):
    """A lease is charged over `ground` (a task, or a sequence number), or was. While the charge is open, `locked_ucr`
    of the stake of `accused` lies here, and each witness has pledged a part of its own (`pledges`: 20 bytes of account
    and 8 of amount each); at `due_ms` it is carried out, or falls after an appeal. `worth_ucr` is what the charged
    claim was worth. `evidence` is the request that charged it, until that is decided: who is accused and who rules can
    look at it, and do the work again."""

    lease: bytes
    ground: bytes
    verdict: bytes
    slashed_ucr: int
    accused: bytes = b""
    locked_ucr: int = 0
    worth_ucr: int = 0
    due_ms: int = 0
    stage: int = ChargeStage.UPHELD
    pledges: bytes = b""
    evidence: bytes = b""

    @property
    def is_open(self) -> bool:
        return self.stage in (ChargeStage.CHARGED, ChargeStage.APPEALED)

    @property
    def witnesses(self) -> tuple[tuple[bytes, int], ...]:
        """Who pledged how much."""
        return unpack(self.pledges)


class StakersRow(msgspec.Struct, frozen=True):
    """Every account with live stake and how much (`pack`), by account: whom auditors are drawn from."""

    stakes: bytes = b""


def pack(amounts: Iterable[tuple[bytes, int]]) -> bytes:
    """Accounts with an amount each, 28 bytes a pair."""
    return b"".join(account + amount.to_bytes(8, "big") for account, amount in amounts)


def unpack(packed: bytes) -> tuple[tuple[bytes, int], ...]:
    """What `pack` has packed."""
    return tuple((account, amount) for account, amount in struct.iter_unpack(">20sQ", packed))


Row = PoolRow | AccountRow | NodeRow | TokenRow | EscrowRow | PendingRow | DoneRow | DrawRow | VerdictRow | StakersRow

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
    Table.STAKERS: StakersRow,
}

_KEYS = {Table.POOL: 0, Table.STAKERS: 0, Table.DONE: 2, Table.VERDICT: 2}
_KEYED = {row: (table, row.__struct_fields__[: _KEYS.get(table, 1)]) for table, row in ROWS.items()}
"""How many of its first fields a row's key is made of: one, but for these."""
POOL, STAKERS = RowKey(Table.POOL, b""), RowKey(Table.STAKERS, b"")


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
    CHARGE = (Table.VERDICT, "locked_ucr")

    def __init__(self, table: Table, field: str) -> None:
        self.table, self.field = table, field


class Book(NamedTuple):
    """One place: `id` is an account, a lease, a lease and a ground, or b"" for the pool's own."""

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
