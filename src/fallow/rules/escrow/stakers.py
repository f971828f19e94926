"""The register of stakes: every account with live stake, in one row, so that whoever is drawn for a claim is drawn from
all of them, in whatever home the books are.

Bounded by MAX_STAKERS, the largest stakes: a newcomer must have more than the least of them to take its place. So who
wants others out of the draw must put up more than each of them, thousands of times over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from fallow.rules.escrow.rows import POOL, STAKERS, AccountRow, PoolRow, Row, RowKey, StakersRow, pack, unpack

MAX_STAKERS = 4096
_PAIR = 28


def restake(row: StakersRow, account: bytes, live_ucr: int) -> StakersRow:
    """The register once `account` has this much live stake."""
    packed, count = row.stakes, len(row.stakes) // _PAIR
    at = _PAIR * bisect_left(range(count), account, key=lambda n: packed[_PAIR * n : _PAIR * n + 20])
    known = packed[at : at + 20] == account
    if not known and live_ucr and count >= MAX_STAKERS:
        stakes = dict(unpack(packed))
        least = min(stakes, key=lambda other: (stakes[other], other))
        if stakes[least] >= live_ucr:
            return row
        del stakes[least]
        return StakersRow(pack(sorted((stakes | {account: live_ucr}).items())))
    return StakersRow(packed[:at] + (pack([(account, live_ucr)] if live_ucr else [])) + packed[at + _PAIR * known :])


def stakers_of(rows: Iterable[Row | None]) -> StakersRow:
    """The register that belongs to these accounts."""
    stakes = sorted((row.live_ucr, row.account) for row in rows if isinstance(row, AccountRow) and row.live_ucr)
    return StakersRow(pack(sorted((account, live_ucr) for live_ucr, account in stakes[-MAX_STAKERS:])))


def misfits(rows: Mapping[RowKey, Row]) -> bool:
    """Whether the register of a full state says something else than the accounts. Who was left out of a full one comes
    back with the next change of its stake, so only the register of a small pool must have everybody."""
    row, pool = rows.get(STAKERS), rows.get(POOL)
    known = set(unpack(row.stakes)) if isinstance(row, StakersRow) else set[tuple[bytes, int]]()
    found = {(row.account, row.live_ucr) for row in rows.values() if isinstance(row, AccountRow) and row.live_ucr}
    small = not isinstance(pool, PoolRow) or pool.accounts <= MAX_STAKERS
    return not known <= found or (small and known != found)
