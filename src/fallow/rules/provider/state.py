"""What the provider's machine remembers."""

from __future__ import annotations

import msgspec

from fallow.rules.placement import Share
from fallow.rules.provider.events import ProviderTerms
from fallow.wire.documents import Lease, Order, Quote, Signed
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import TaskSpec


class Reservation(msgspec.Struct, array_like=True):
    """Resources held for a quote until it expires or becomes a lease."""

    order: Order
    quote: Quote
    quote_hash: bytes
    share: Share


class TaskEntry(msgspec.Struct, array_like=True):
    """`phase` is "queued", "running", "claimed", "failed" (may be assigned again) or "ended" (may not). `spec` is
    dropped when the task ends."""

    phase: str
    units: int
    spec: TaskSpec | None
    sources: tuple[NodeAddress, ...] = ()
    attempts: int = 0


class LeaseEntry(msgspec.Struct, array_like=True):
    """`phase` is "signed" (escrow not seen open yet), "open", "leaving" (no more work; claims may still be paid),
    "closing" (redeem, then close the escrow) or "closed". `until_ms` is when "signed" and "leaving" give up waiting,
    or when "closed" is forgotten."""

    document: Lease
    order: Order
    quote: Quote
    signed: Signed
    share: Share
    phase: str
    until_ms: int
    left_ms: int = 0
    sequence: int = 0
    claims: int = 0
    claimed_units: int = 0
    promised_units: int = 0
    voucher: Signed | None = None
    voucher_ucr: int = 0
    redeemed_ucr: int = 0
    redeem_ms: int = 0
    tasks: dict[bytes, TaskEntry] = {}
    queue: list[bytes] = []
    running: bytes = b""
    lane_next: int = 1
    reckoned: bool = False
    """Whether it is known what the bank paid under a lease that is closed."""


class ProviderState(msgspec.Struct, array_like=True):
    """Everything that a restart must not lose. `changes` counts up with every change, so that an event that changed
    nothing need not be kept."""

    terms: ProviderTerms
    owner: str = ""
    """Why the machine is not idle; "" when it is."""
    stake_ucr: int = 0
    reservations: dict[bytes, Reservation] = {}
    leases: dict[bytes, LeaseEntry] = {}
    changes: int = 0
    debts: dict[bytes, int] = {}
    """What requesters' accounts left unpaid under closed leases, in ucr."""
