"""Moving money: a draft of the touched rows in which every change of a balance is a double entry, and the checks that
hold in every state and on every transition.

Conservation: minted == purse + all that is available, staked, unbonding, held, in escrow, bonded and charged. The rules
refuse before they move, so a move that would overdraw or overflow is our bug and stops the home.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from fallow.rules.escrow.rows import (
    POOL,
    AccountRow,
    Book,
    EscrowRow,
    Move,
    Outcome,
    Pending,
    PendingRow,
    Place,
    PoolRow,
    Row,
    RowKey,
    VerdictRow,
    account_key,
    escrow_key,
    key_of,
    pending_key,
    verdict_key,
)
from fallow.rules.escrow.stakers import misfits
from fallow.units import MAX_UCR
from fallow.wire.documents import Settlement
from fallow.wire.ledger import MAX_CHARGED, BalanceOf

R = TypeVar("R", bound=Row)
MINT, PURSE = Book(Place.MINT, b""), Book(Place.PURSE, b"")
_MIRRORS = {
    Place.ESCROW: ("requester", "escrowed_ucr"),
    Place.BOND: ("provider", "bonded_ucr"),
    Place.CHARGE: ("accused", "charged_ucr"),
}


class Draft:
    """A working copy of the loaded rows; nothing outside changes until a home writes `changed`. Asking for a row that
    was not loaded is our bug (KeyError)."""

    def __init__(self, rows: Mapping[RowKey, Row | None]) -> None:
        self._rows = rows
        self.changed: dict[RowKey, Row] = {}
        self.moves: list[Move] = []

    def find(self, kind: type[R], key: RowKey) -> R | None:
        """The row at `key`, as this draft has it."""
        row = self._row(key)
        assert row is None or isinstance(row, kind), f"{key} holds a {type(row).__name__}"
        return row

    def _row(self, key: RowKey) -> Row | None:
        return self.changed.get(key) or self._rows[key]

    def put(self, row: Row) -> None:
        """Write a row, new or changed. Money fields change through `move` only."""
        self.changed[key_of(row)] = row

    def account(self, account: bytes) -> AccountRow:
        """An account that the caller of this function has already found to exist."""
        row = self.find(AccountRow, account_key(account))
        assert row is not None, "an account vanished"
        return row

    def pool(self) -> PoolRow:
        """The pool's own row; a new pool has an empty one."""
        return self.find(PoolRow, POOL) or PoolRow()

    def pending(self, account: bytes) -> tuple[Pending, ...]:
        """An account's pending transfers, oldest first."""
        row = self.find(PendingRow, pending_key(account))
        return row.entries if row else ()

    def set_pending(self, account: bytes, entries: Iterable[Pending]) -> None:
        """Replace an account's pending transfers; the money is moved apart from it."""
        self.put(PendingRow(account, tuple(entries)))

    def move(self, debit: Book, credit: Book, amount_ucr: int) -> None:
        """One double entry. Moving nothing leaves no entry. AssertionError when `debit` holds too little or `credit`
        would overflow: whoever calls has checked both."""
        assert amount_ucr >= 0, "money moves forward only"
        if amount_ucr == 0:
            return
        self._change(debit, amount_ucr if debit.place is Place.MINT else -amount_ucr)
        self._change(credit, amount_ucr)
        self.moves.append(Move(debit, credit, amount_ucr))

    def mature(self, account: bytes, now_ms: int) -> None:
        """Post what is due: unbonded stake becomes available, held bonds become free stake, of which fines are paid;
        pledges are over."""
        row = self.find(AccountRow, account_key(account))
        if row is None:
            return
        if row.unbonding_ucr or row.held_ucr:
            entries = self.pending(account)
            due = [entry for entry in entries if entry.due_ms <= now_ms]
            for entry in due:
                self.post(account, entry)
            if due:
                self.set_pending(account, (entry for entry in entries if entry.due_ms > now_ms))
        if row.pledged_ucr and row.pledged_until_ms <= now_ms:
            self.put(msgspec.structs.replace(self.account(account), pledged_ucr=0))
        if row.fined_ucr and (paid := min(row.fined_ucr, self.account(account).stake_ucr)):
            self.put(msgspec.structs.replace(self.account(account), fined_ucr=row.fined_ucr - paid))
            self.move(Book(Place.STAKE, account), PURSE, paid)
            self.untie(account)

    def untie(self, account: bytes) -> None:
        """After a loss: no more is tied than there is."""
        row = self.account(account)
        self.put(msgspec.structs.replace(row, tied_ucr=min(row.tied_ucr, row.owned_ucr)))

    def post(self, account: bytes, entry: Pending) -> None:
        """Let one pending transfer arrive. The caller takes it off the list."""
        source, target = (Place.HELD, Place.STAKE) if entry.lease else (Place.UNBONDING, Place.AVAILABLE)
        self.move(Book(source, account), Book(target, account), entry.amount_ucr)

    def _change(self, book: Book, delta_ucr: int) -> None:
        key = RowKey(book.place.table, book.id)
        row = self.pool() if book.place.table is POOL.table else self._row(key)
        assert row is not None, f"no row holds {book}"
        amount = getattr(row, book.place.field) + delta_ucr
        assert 0 <= amount <= MAX_UCR, f"{book} would hold {amount}"
        self.put(msgspec.structs.replace(row, **{book.place.field: amount}))
        if book.place in _MIRRORS:
            party, field = _MIRRORS[book.place]
            mirror = self.account(getattr(row, party))
            self.put(msgspec.structs.replace(mirror, **{field: getattr(mirror, field) + delta_ucr}))


def saturate(amount_ucr: int) -> int:
    """Totals that only inform stop at the top instead of overflowing: money can be passed to and fro forever."""
    return min(amount_ucr, MAX_UCR)


def held_ucr(row: Row | None) -> int:
    """The money that lies in one row. An account's escrowed and bonded totals are not counted: that money lies in the
    escrow's row."""
    match row:
        case AccountRow():
            return row.available_ucr + row.stake_ucr + row.unbonding_ucr + row.held_ucr
        case EscrowRow():
            return row.locked_ucr + row.bond_ucr
        case PoolRow():
            return row.purse_ucr
        case VerdictRow():
            return row.locked_ucr
        case _:
            return 0


def imbalance_ucr(before: Mapping[RowKey, Row | None], outcome: Outcome) -> int:
    """How much money a transition made from nothing, looking only at the rows it changed: must be 0. Homes stop at
    anything else before they write."""
    made = 0
    for key, row in outcome.changed.items():
        old = before[key]
        made += held_ucr(row) - held_ucr(old)
        if isinstance(row, PoolRow):
            made -= row.minted_ucr - (old.minted_ucr if isinstance(old, PoolRow) else 0)
    return made


class Totals(NamedTuple):
    """The whole in one line."""

    minted_ucr: int
    sum_ucr: int
    accounts: int
    open_escrows: int


def totals(rows: Iterable[Row]) -> Totals:
    """Add up a full state."""
    minted = summed = accounts = escrows = 0
    for row in rows:
        summed += held_ucr(row)
        minted += row.minted_ucr if isinstance(row, PoolRow) else 0
        accounts += isinstance(row, AccountRow)
        escrows += isinstance(row, EscrowRow) and not row.closed_ms
    return Totals(minted, summed, accounts, escrows)


def faults(rows: Mapping[RowKey, Row]) -> list[str]:
    """Every way in which a full state breaks an invariant; empty for sound books. For tests, the simulator and
    `fallow doctor`: costs a pass over all rows."""
    found: list[str] = []
    whole = totals(rows.values())
    if whole.minted_ucr != whole.sum_ucr:
        found.append(f"minted {whole.minted_ucr}, but {whole.sum_ucr} is there")
    mirrored: Counter[tuple[str, bytes]] = Counter()
    for key, row in rows.items():
        if key_of(row) != key:
            found.append(f"{key} holds another row")
        if isinstance(row, EscrowRow):
            found += _escrow_faults(row, rows)
            mirrored["escrowed_ucr", row.requester] += row.locked_ucr
            mirrored["bonded_ucr", row.provider] += row.bond_ucr
        if isinstance(row, VerdictRow):
            found += _verdict_faults(row, rows)
            mirrored["charged_ucr", row.accused] += row.locked_ucr
        if isinstance(row, PendingRow) and account_key(row.account) not in rows:
            found.append(f"pending money of nobody: {row.account.hex()}")
    for row in rows.values():
        if isinstance(row, AccountRow):
            found += _account_faults(row, rows, mirrored)
    if misfits(rows):
        found.append("the register of stakes does not fit the accounts")
    return found


def _verdict_faults(row: VerdictRow, rows: Mapping[RowKey, Row]) -> list[str]:
    name, escrow = row.lease.hex()[:12], rows.get(escrow_key(row.lease))
    if not isinstance(escrow, EscrowRow):
        return [f"a verdict on lease {name}, which is not here"]
    if row.is_open != (escrow.ground == row.ground) or (row.locked_ucr and not row.is_open) or row.locked_ucr < 0:
        return [f"lease {name}: a charge that is open and not its own, or decided and still holds money"]
    return []


def _escrow_faults(row: EscrowRow, rows: Mapping[RowKey, Row]) -> list[str]:
    name, found = row.lease.hex()[:12], list[str]()
    charge = rows.get(verdict_key(row.lease, row.ground))
    if (charge.locked_ucr if isinstance(charge, VerdictRow) else 0) != row.charged_ucr:
        found.append(f"lease {name}: its charge holds something else")
    if row.locked_ucr + row.paid_ucr + row.refunded_ucr != row.cap_ucr:
        found.append(f"lease {name}: locked, paid and refunded are not the cap")
    if min(row.locked_ucr, row.paid_ucr, row.refunded_ucr, row.bond_ucr, row.slashed_ucr) < 0:
        found.append(f"lease {name}: a negative amount")
    if row.closed_ms and (row.locked_ucr or row.bond_ucr):
        found.append(f"lease {name}: closed, but still holds money")
    taken = row.slashed_ucr + row.charged_ucr
    if taken > row.stake_ucr or (not row.closed_ms and row.bond_ucr + row.charged_ucr != row.stake_ucr):
        found.append(f"lease {name}: bond and slashes do not fit the stake")
    return found


def _account_faults(
    row: AccountRow, rows: Mapping[RowKey, Row], mirrored: Mapping[tuple[str, bytes], int]
) -> list[str]:
    name, found = row.account.hex()[:12], list[str]()
    money = (row.available_ucr, row.stake_ucr, row.unbonding_ucr, row.held_ucr, row.escrowed_ucr, row.bonded_ucr)
    if min(*money, row.charged_ucr, row.pledged_ucr, row.fined_ucr) < 0:
        found.append(f"account {name}: a negative amount")
    if not 0 <= row.tied_ucr <= row.owned_ucr:
        found.append(f"account {name}: more is tied than there is")
    if any(getattr(row, field) != mirrored[field, row.account] for _, field in _MIRRORS.values()):
        found.append(f"account {name}: its leases hold something else")
    pending = rows.get(pending_key(row.account))
    entries = pending.entries if isinstance(pending, PendingRow) else ()
    unbonding = sum(entry.amount_ucr for entry in entries if not entry.lease)
    held = sum(entry.amount_ucr for entry in entries if entry.lease)
    if (unbonding, held) != (row.unbonding_ucr, row.held_ucr):
        found.append(f"account {name}: pending transfers add up to something else")
    return found


def balance_of(
    account: bytes, row: AccountRow | None, pending: PendingRow | None, now_ms: int, charged: tuple[bytes, ...] = ()
) -> BalanceOf:
    """What a person sees. What is due by `now_ms` counts as arrived, though it is posted only when next touched.
    `charged` are leases with charges against the account that are not decided."""
    if row is None:
        return BalanceOf(account, 0, 0, 0, 0, 0, 0, 0)
    rows: dict[RowKey, Row | None] = {POOL: None, account_key(account): row, pending_key(account): pending}
    draft = Draft(rows)
    draft.mature(account, now_ms)
    seen = draft.account(account)
    bonded = seen.bonded_ucr + seen.held_ucr + seen.charged_ucr
    return BalanceOf(
        account=account,
        available_ucr=seen.available_ucr,
        escrowed_ucr=seen.escrowed_ucr,
        staked_ucr=seen.stake_ucr + bonded + seen.unbonding_ucr,
        bonded_ucr=bonded,
        unbonding_ucr=seen.unbonding_ucr,
        earned_ucr=seen.earned_ucr,
        slashed_ucr=seen.slashed_ucr,
        charged=charged[:MAX_CHARGED],
    )


def settlement_of(row: EscrowRow) -> Settlement:
    """What the bank states about a lease."""
    return Settlement(
        lease=row.lease,
        paid_ucr=row.paid_ucr,
        refunded_ucr=row.refunded_ucr,
        slashed_ucr=row.slashed_ucr,
        closed_ms=row.closed_ms,
    )


def escrow_of(draft: Draft, lease: bytes) -> EscrowRow | None:
    """The escrow of a lease."""
    return draft.find(EscrowRow, escrow_key(lease))
