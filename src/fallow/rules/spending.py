"""API keys with budgets, as rules: a reservation before the work, the true cost after it, never more than the budget.

The secret itself is not here: a key is known by the hash of its secret. State is updated in place; every function is
deterministic and idempotent by operation id, so that a gateway may repeat any call after a crash.
"""

from __future__ import annotations

import msgspec

MAX_KEYS = 10_000
MAX_RESERVATIONS = 1_000
RESERVATION_MS = 15 * 60 * 1000
MAX_SETTLED = 32


class Hold(msgspec.Struct):
    """Money set aside for one request in flight. It lapses at `expires_ms`: a gateway that died cannot free it."""

    amount_ucr: int
    expires_ms: int


class ApiKey(msgspec.Struct):
    """One key. `spent_ucr` counts what was booked; reservations come on top until they are booked or lapse. `settled`
    holds the latest booked operations, so that booking one twice changes nothing."""

    prefix: str
    label: str
    budget_ucr: int
    spent_ucr: int = 0
    revoked: bool = False
    reserved: dict[bytes, Hold] = {}
    settled: list[bytes] = []


def available_ucr(key: ApiKey, now_ms: int) -> int:
    """What a new request may reserve now; lapsed reservations are dropped. 0 for a revoked key."""
    for operation in [o for o, r in key.reserved.items() if r.expires_ms <= now_ms]:
        del key.reserved[operation]
    if key.revoked:
        return 0
    return max(0, key.budget_ucr - key.spent_ucr - sum(r.amount_ucr for r in key.reserved.values()))


def reserve(key: ApiKey, operation: bytes, amount_ucr: int, now_ms: int) -> bool:
    """Set `amount_ucr` aside. False when the budget does not cover it, the key is revoked or too many requests are in
    flight; True again, without a second reservation, for an operation that is known."""
    if operation in key.reserved or operation in key.settled:
        return True
    if amount_ucr > available_ucr(key, now_ms) or len(key.reserved) >= MAX_RESERVATIONS:
        return False
    key.reserved[operation] = Hold(amount_ucr, now_ms + RESERVATION_MS)
    return True


def post(key: ApiKey, operation: bytes, amount_ucr: int) -> int:
    """Book what a request cost, at most what was reserved for it, and free the rest; -> what was booked. 0 for an
    operation that is unknown (it lapsed) or booked already."""
    reservation = key.reserved.pop(operation, None)
    if reservation is None:
        return 0
    booked = min(amount_ucr, reservation.amount_ucr)
    key.spent_ucr += booked
    key.settled = [*key.settled, operation][-MAX_SETTLED:]
    return booked
