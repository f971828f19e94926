"""What goes into the provider's machine, and what comes out.

Events are past facts, prefixed by who says so: `Peer*` (a requester's node; whatever it signed has been checked, and
who signed it is in `signer`), `Ledger*` (the bank), `Worker*` and `Lane*` (our own processes), `Owner*`, `Clock*`.
Effects are imperatives and idempotent. All are msgspec structs, since events are written to the log before their
effects run. A `tag` is the name by which an event stands in logs that were written before it was called otherwise.
"""

from __future__ import annotations

import msgspec

from fallow.rules.placement import Capacity
from fallow.units import MS_PER_S
from fallow.wire.documents import ClaimRoot, Lease, Order, Quote, Signed
from fallow.wire.messages import LeaseLeaving, NodeAddress, Shortfall, TaskFailed
from fallow.wire.tasks import TaskOutput, TaskSpec

HOUR_MS = 3_600 * MS_PER_S


class ProviderPolicy(msgspec.Struct, frozen=True, array_like=True):
    """The numbers behind the provider's rules; all bound what a peer can make it hold, do, or do unpaid."""

    quote_ms: int = 20 * MS_PER_S
    """How long resources stay reserved for a quote that was not taken yet."""
    escrow_ms: int = 60 * MS_PER_S
    """How long a signed lease may go without open escrow: a requester that pays nobody blocks nobody."""
    grace_ms: int = 60 * MS_PER_S
    """How long a lease that ended waits for vouchers of claims that are still being checked."""
    settle_ms: int = 5 * MS_PER_S
    """How long at least a lease that stops working stays open, so that answers under way are still claimed."""
    redeem_ms: int = 60 * MS_PER_S
    """How long a voucher may lie unredeemed; less would tire a chain, more would risk the money."""
    keep_ms: int = 10 * 60 * MS_PER_S
    """How long a closed lease is remembered, for requesters that ask again."""
    max_lease_ms: int = 30 * 24 * HOUR_MS
    markup_percent: int = 50
    """What a fully sold machine asks above its owner's minimum."""
    credit_ucr: int = 50_000
    """What may be claimed under a lease and not be paid before work pauses: with one more task, all that can be
    lost."""
    debt_ucr: int = 50_000
    """What an account may have left unpaid under closed leases in all, and still get quotes."""
    stake_ucr: int = 1_000_000
    """The stake put behind each lease, as far as there is free stake; an order may ask for more."""
    max_reservations: int = 64
    max_reservations_each: int = 8
    """Of one requester, since quotes are free to ask for."""
    max_leases: int = 256
    max_queued: int = 1_024
    max_tasks: int = 100_000
    max_attempts: int = 5


class ProviderTerms(msgspec.Struct, frozen=True, array_like=True):
    """Who the provider is and what its owner sells. `rates` is the least price per 1,000 units, by kind of work;
    `exact` whether the machine has reproduced the vectors of exact arithmetic."""

    account: bytes
    node: bytes
    bank: bytes
    capacity: Capacity
    numerics: str
    rates: dict[str, int]
    policy: ProviderPolicy = ProviderPolicy()
    exact: bool = False


# events ---------------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of the events; `at_ms` is the provider's own clock."""

    at_ms: int


class ProviderRestarted(Event, frozen=True):
    """The process began, the first time or again, under these terms. No worker of before is alive."""

    terms: ProviderTerms


class PeerOrdered(Event, frozen=True):
    """`signer` signed the order and showed a good certificate for the node `caller` that sent it."""

    caller: bytes
    signer: bytes
    order: Order


class PeerProposedLease(Event, frozen=True):
    """`signer` signed the lease that the node `caller` sent."""

    caller: bytes
    signer: bytes
    lease: Lease
    signed: Signed


class PeerAssigned(Event, frozen=True):
    """`task` is the id of `spec`; `sources` hold its inputs."""

    caller: bytes
    lease: bytes
    task: bytes
    spec: TaskSpec
    sources: tuple[NodeAddress, ...]


class PeerCancelled(Event, frozen=True):
    """The requester wants no answer any more."""

    caller: bytes
    lease: bytes
    task: bytes


class PeerPaid(Event, frozen=True):
    """`signer` signed this voucher."""

    caller: bytes
    signer: bytes
    lease: bytes
    cumulative_ucr: int
    voucher: Signed


class PeerClosed(Event, frozen=True):
    """The requester is done with the lease."""

    caller: bytes
    lease: bytes


class LedgerOpened(Event, frozen=True):
    """The bank's signed settlement says that the lease's escrow is open."""

    lease: bytes


class LedgerRedeemed(Event, frozen=True):
    """The bank has paid `cumulative_ucr` in all under the lease."""

    lease: bytes
    cumulative_ucr: int


class LedgerClosed(Event, frozen=True):
    """The bank says that the escrow is closed, whoever closed it, or that there never was one. `paid_ucr` and
    `slashed_ucr` are its last word, where it was asked for that."""

    lease: bytes
    paid_ucr: int | None = None
    slashed_ucr: int = 0


class LedgerRefusedVoucher(Event, frozen=True, tag="LedgerRefused"):
    """The bank will not redeem what we hold under the lease, now or later."""

    lease: bytes
    reason: str


class LedgerStaked(Event, frozen=True):
    """Our stake at the bank, in all."""

    stake_ucr: int


class WorkerFinished(Event, frozen=True):
    """The task's output; its parts are in our blob store."""

    lease: bytes
    task: bytes
    output: TaskOutput
    metrics: dict[str, int]


class WorkerFailedTask(Event, frozen=True, tag="WorkerFailed"):
    """The task ended without output; `died` when it took its process with it."""

    lease: bytes
    task: bytes
    code: str
    what: str
    retryable: bool
    died: bool = False


class LaneAnswered(Event, frozen=True):
    """`count` lane tasks from number `first` on were answered, worth `units` together; `root` commits to them."""

    lease: bytes
    first: int
    count: int
    units: int
    root: bytes


class OwnerReturned(Event, frozen=True):
    """By the owner's rule the machine is not idle any more."""

    reason: str


class OwnerLeft(Event, frozen=True):
    """The machine counts as idle again."""


class ClockTicked(Event, frozen=True):
    """Time passed; changes something only when a deadline is reached."""


ProviderEvent = (
    ProviderRestarted | PeerOrdered | PeerProposedLease | PeerAssigned | PeerCancelled | PeerPaid | PeerClosed
    | LedgerOpened | LedgerRedeemed | LedgerClosed | LedgerRefusedVoucher | LedgerStaked | WorkerFinished
    | WorkerFailedTask | LaneAnswered | OwnerReturned | OwnerLeft | ClockTicked
)  # fmt: skip


# effects --------------------------------------------------------------------------------------------------------------


class Effect(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of the effects. Those named `Reply*`, and CountersignLease, answer the event that caused them."""


class ReplyQuote(Effect, frozen=True):
    """Sign the quote and answer Quoted."""

    quote: Quote


class ReplyDeclined(Effect, frozen=True):
    """Answer Declined."""

    shortfalls: tuple[Shortfall, ...]


class CountersignLease(Effect, frozen=True):
    """Sign the lease and answer LeaseSigned."""

    lease: Lease


class ReplyOk(Effect, frozen=True):
    """Answer Ok."""


class ReplyFailure(Effect, frozen=True):
    """Answer Failure."""

    code: str
    what: str


class CheckEscrow(Effect, frozen=True):
    """Ask the bank whether the lease's escrow is open."""

    lease: bytes


class StartTask(Effect, frozen=True):
    """Fetch the inputs and run the task in the lease's worker. A task that runs already is left alone."""

    lease: bytes
    task: bytes
    spec: TaskSpec
    sources: tuple[NodeAddress, ...]


class StopTask(Effect, frozen=True):
    """Stop the running task and forget its inputs; nothing is reported of it."""

    lease: bytes
    task: bytes


class StopLease(Effect, frozen=True):
    """Stop everything that runs under the lease and free what it held."""

    lease: bytes


class EmitEvent(Effect, frozen=True):
    """Append to the lease's durable stream, unless its `sequence` is there already, and tell its watchers."""

    lease: bytes
    sequence: int
    at_ms: int
    body: TaskFailed | LeaseLeaving


class SignClaim(Effect, frozen=True):
    """Sign `root` with the account key and append the claim to the lease's durable stream, unless its `sequence` is
    there already. `task` is b"" for a claim of lane tasks, which begins at lane number `first`."""

    lease: bytes
    sequence: int
    at_ms: int
    root: ClaimRoot
    task: bytes = b""
    output: TaskOutput | None = None
    metrics: dict[str, int] = {}
    first: int = 0


class RedeemVoucher(Effect, frozen=True):
    """Bring the voucher to the bank; -> LedgerRedeemed or LedgerRefusedVoucher."""

    lease: bytes
    cumulative_ucr: int
    voucher: Signed


class ReleaseEscrow(Effect, frozen=True):
    """Close the escrow at the bank; -> LedgerClosed."""

    lease: bytes


ProviderEffect = (
    ReplyQuote | ReplyDeclined | CountersignLease | ReplyOk | ReplyFailure | CheckEscrow | StartTask | StopTask
    | StopLease | EmitEvent | SignClaim | RedeemVoucher | ReleaseEscrow
)  # fmt: skip
Replies = (ReplyQuote, ReplyDeclined, CountersignLease, ReplyOk, ReplyFailure)
