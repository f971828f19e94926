"""Documents that can reach a ledger: what they say and how they are named. Each is EIP-712 typed data signed by an
account key (`wire/eip712.py` hashes and signs them). The EIP-712 type of a field follows from its Python type:
`Word` is bytes32, `Address` is address, `U64` is uint64, `str` is string; the struct's name is the class name and the
field names are kept as they are written here.

The signing domain is {name "Fallow", version "1", salt = the bank's account address padded to 32 bytes}, so that no
document can be replayed at another bank; a certificate uses a salt of zeros, since it is good everywhere.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Word = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Address = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
U64 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Label = Annotated[str, msgspec.Meta(max_length=200)]
ShortLabel = Annotated[str, msgspec.Meta(max_length=60)]
Signature = Annotated[bytes, msgspec.Meta(min_length=65, max_length=65)]

NO_BANK = bytes(20)


class Document(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Base of the signed documents. Times are Unix milliseconds, money is ucr."""


class Certificate(Document, frozen=True):
    """`account` says that `node` speaks for it until `expires_ms`."""

    account: Address
    node: Word
    issued_ms: U64
    expires_ms: U64


class Order(Document, frozen=True):
    """What a requester wants: `kind` of typed workload, up to `units` of it, at most `max_price_ucr` per 1,000 units,
    between now and `ends_ms`. `numerics` is empty, or the class of machine whose results must be comparable bit for
    bit. `bank` is where both sides settle. `nonce` makes two equal orders different."""

    requester: Address
    node: Word
    job: Word
    kind: Label
    numerics: Label
    cpu_millis: U64
    ram_bytes: U64
    disk_bytes: U64
    gpus: U64
    gpu_ram_bytes: U64
    units: U64
    max_price_ucr: U64
    min_stake_ucr: U64
    verify: Label
    ends_ms: U64
    bank: Address
    nonce: Word


class HostedOrder(Order, frozen=True):
    """An order that asks for what containers and services need, too. A type of its own, so that orders without stay
    what they were, byte for byte. Nothing serves it yet: providers decline it field by field. `ports` are to be
    reachable from outside (`80/tcp`, comma-separated), `network` says where the work may connect to (empty: nowhere),
    and `storage_bytes` outlive a task."""

    ports: ShortLabel
    network: ShortLabel
    storage_bytes: U64


class Quote(Document, frozen=True):
    """A provider's bid on the order with hash `order`: `price_ucr` per 1,000 units on exactly `cards` (comma-separated
    GPU ids, empty for none), with `stake_ucr` of its stake behind it. The resources stay reserved until
    `expires_ms`."""

    order: Word
    provider: Address
    node: Word
    price_ucr: U64
    stake_ucr: U64
    cards: Label
    expires_ms: U64


class Lease(Document, frozen=True):
    """Order and chosen quote, made one; signed by both accounts. At most `cap_ucr` can ever be paid under it, and at
    most `stake_ucr` can be slashed. After `ends_ms` the requester may close it alone."""

    order: Word
    quote: Word
    requester: Address
    provider: Address
    requester_node: Word
    provider_node: Word
    kind: Label
    price_ucr: U64
    cap_ucr: U64
    stake_ucr: U64
    starts_ms: U64
    ends_ms: U64
    bank: Address


class Voucher(Document, frozen=True):
    """The requester's promise of `cumulative_ucr` in all under `lease`. Only the highest one matters, so a lost or
    repeated voucher changes nothing."""

    lease: Word
    cumulative_ucr: U64


class ClaimRoot(Document, frozen=True):
    """The provider's statement of what it did under `lease`: the Merkle `root` over `count` leaves (see
    `wire/claims.py`) worth `units` together. `sequence` counts up from 1 within a lease; two roots with one sequence
    number are proof of equivocation."""

    lease: Word
    sequence: U64
    root: Word
    count: U64
    units: U64


class Verdict(Document, frozen=True):
    """The requester's charge that under `lease` the task `task` was answered with `claimed` although the answer that
    `quorum` others gave is `accepted`; asks for `slash_ucr`. Worth nothing without the claims as evidence."""

    lease: Word
    task: Word
    claimed: Word
    accepted: Word
    slash_ucr: U64


class Settlement(Document, frozen=True):
    """The bank's statement about a lease: what was paid out, given back and slashed so far, and whether it is closed
    (`closed_ms` is 0 while open)."""

    lease: Word
    paid_ucr: U64
    refunded_ucr: U64
    slashed_ucr: U64
    closed_ms: U64


class AuditDraw(Document, frozen=True):
    """The bank's statement that it was shown the claim with hash `claim`, then drew `seed` for it, and by that and
    their stakes the accounts whose `claims.accounts_hash` is `drawn`, and will never draw others."""

    claim: Word
    seed: Word
    drawn: Word


class ReceiptSeal(Document, frozen=True):
    """The steward's signature over a whole receipt: `body` is the BLAKE3 hash of its bytes."""

    body: Word


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A document as it travels: the received bytes of `body` (a canonical `Document`) and a 65-byte recoverable
    signature over its EIP-712 hash. Hash and verify these bytes, never a re-encoding."""

    body: Annotated[bytes, msgspec.Meta(max_length=4096)]
    signature: Signature


AnyDocument = (
    Certificate | Order | HostedOrder | Quote | Lease | Voucher | ClaimRoot | Verdict | Settlement | AuditDraw
    | ReceiptSeal
)  # fmt: skip
