"""What the steward's brain is told (events) and what it asks for (effects).

How an interpreter uses it (`node/steward/role.py`, and the simulator):

1. Write the event to the EventLog (stream "steward", `codec.encode(event)`), then call `transition(state, event)`,
   then run the effects. At most one event at a time; the brain has no locks.
2. On start: replay the whole log through `transition`. Of the effects seen while replaying run only `RECORDS` (Note,
   KeepReceipt, JobEnded: they write to a table under a key of their own, so that doing so again changes nothing) and
   drop the others. Then log and apply `StewardStarted`, and run what that gives and `outstanding(state)`.
3. Every effect is idempotent by its contents and may be asked for again at any time. An effect that could not be
   carried out for want of connection, bank or directory is tried again by the interpreter with back-off, until its
   answering event arrived or `outstanding(state)` no longer lists it. What is asked of one task under a lease is asked
   in the order given, and EndLease after all else that was asked under its lease (`node/steward/order.py`).
4. Whatever the interpreter puts in an event it has checked before: signatures, certificates, that a claim's root
   covers exactly this task, output and units, that the sender is the lease's node. The brain checks what only it can
   know: that the claim was asked for, is new, and is right.

Events are past facts with their origin as prefix; all are harmless when stale, repeated or out of order. `at_ms` is the
interpreter's clock when it logged the event; the brain's own time is the highest it has seen. A `tag` is the name by
which an event stands in logs that were written before it was called otherwise.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64, Address, Label, Lease, Order, Quote, Signed, Word
from fallow.wire.ledger import MAX_DRAWN, Evidence, Refusal
from fallow.wire.local import JobSpec, Work
from fallow.wire.messages import NodeAddress, Offer, Shortfall, Text
from fallow.wire.receipts import MAX_UNDRAWN
from fallow.wire.tasks import LaneSetting, Part, TaskOutput, TaskSpec

MAX_OFFERS_SEEN = 1000

Sources = Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=64)]
Shortfalls = Annotated[tuple[Shortfall, ...], msgspec.Meta(max_length=32)]


class StewardIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Who this steward is: the account that pays, the node that speaks for it, the bank where it settles."""

    account: Address
    node: Word
    bank: Address


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """All of the brain's patience, in ms. `patience`: how long a job without any lease waits for offers before it
    fails; `search_every`: between two searches; `quote_within`: a provider's time to quote, sign or open;
    `lost_after`: how long a node may be unobserved before it counts as dead; `lease_length`: a lease's term, after
    which the requester may close it alone; `audit_within`: how long a claim waits for an auditor before it is treated
    as one that nobody can check; `round_within`: the least time after which a training round may close without its
    stragglers."""

    patience: U64 = 30_000
    search_every: U64 = 5_000
    quote_within: U64 = 20_000
    lost_after: U64 = 60_000
    lease_length: U64 = 3_600_000
    audit_within: U64 = 120_000
    round_within: U64 = 300_000


# events ---------------------------------------------------------------------------------------------------------------


class StewardEvent(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Base of the facts that the brain is told."""

    at_ms: U64


class StewardStarted(StewardEvent, frozen=True):
    """The process starts (again), or wakes after the machine slept. Time during which it was down is nobody's fault:
    all clocks that run against peers begin anew."""

    identity: StewardIdentity
    timing: Timing = Timing()


class ClockTicked(StewardEvent, frozen=True):
    """Time passed. Worth telling when `due(state, now_ms)`."""


class UserSubmitted(StewardEvent, frozen=True):
    """A job of the owner's. One id twice is one job."""

    job: Word
    spec: JobSpec


class UserCancelled(StewardEvent, frozen=True):
    """The owner wants the job to end now."""

    job: Word


class OffersGathered(StewardEvent, frozen=True, tag="OffersSeen"):
    """Answers FindOffers: live offers with valid signatures and certificates, from all directories, one per node, at
    the steward's own bank or another. Empty when there are none; an unreachable directory is not an answer."""

    job: Word
    offers: Annotated[tuple[Offer, ...], msgspec.Meta(max_length=MAX_OFFERS_SEEN)]


class PeerQuoted(StewardEvent, frozen=True):
    """Answers AskQuote. `quote` is the content of `signed`."""

    job: Word
    seat: U64
    quote: Quote
    signed: Signed


class PeerDeclined(StewardEvent, frozen=True):
    """Answers AskQuote or ProposeLease with a no; empty shortfalls when the peer could not be reached in time."""

    job: Word
    seat: U64
    shortfalls: Shortfalls


class PeerSigned(StewardEvent, frozen=True):
    """Answers ProposeLease: both signatures are there. `lease` is its EIP-712 hash, `terms` the document; `ours` and
    `theirs` are the same bytes signed by each side."""

    job: Word
    seat: U64
    lease: Word
    terms: Lease
    ours: Signed
    theirs: Signed


class LedgerOpened(StewardEvent, frozen=True):
    """Answers FundEscrow."""

    lease: Word


class LedgerRefusedEscrow(StewardEvent, frozen=True):
    """Answers FundEscrow with a no."""

    lease: Word
    reason: Refusal
    detail: Text = ""


class PeerClaimed(StewardEvent, frozen=True):
    """A `Claimed` from Watch. `sequence` is the LeaseEvent's; `digest` the hash of `output` that the claim
    commits to; `claim` the signed root and `claim_hash` its EIP-712 hash."""

    lease: Word
    sequence: U64
    task: Word
    output: TaskOutput
    digest: Word
    claim: Signed
    claim_hash: Word
    holders: Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=8)]


class PeerFailed(StewardEvent, frozen=True):
    """A `TaskFailed` from Watch, or (with sequence 0) a Failure in answer to Assign that trying again cannot
    cure."""

    lease: Word
    sequence: U64
    task: Word
    code: Label
    what: Text
    retryable: bool


class PeerLeaving(StewardEvent, frozen=True):
    """A `LeaseLeaving` from Watch (sequence 0: a Failure E1302 in answer to Assign; the lease is gone there)."""

    lease: Word
    sequence: U64
    reason: Label


class PeerUnobserved(StewardEvent, frozen=True):
    """The node cannot be reached at this moment. Not the same as dead: the brain decides that, by deadline."""

    node: Word


class PeerObserved(StewardEvent, frozen=True):
    """The node was heard from after PeerUnobserved or StewardStarted."""

    node: Word


class BlobKept(StewardEvent, frozen=True):
    """Answers KeepBlob: the blob is in our own store, checked and pinned."""

    job: Word
    blob: Word


class BlobMissing(StewardEvent, frozen=True):
    """Answers KeepBlob: the sources did not deliver it within a bounded time, or hold something else."""

    job: Word
    blob: Word


class AuditorsDrawn(StewardEvent, frozen=True):
    """Answers Draw. `drawn` are the accounts that can bear witness against the claim, first drawn first."""

    claim_hash: Word
    seed: Word
    drawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_DRAWN)] = ()


class LedgerRefusedDraw(StewardEvent, frozen=True):
    """Answers Draw with a no. The claim is then checked in any case."""

    claim_hash: Word
    reason: Refusal


class LaneLoaded(StewardEvent, frozen=True, tag="LaneReady"):
    """Answers PrepareLane: the provider has loaded what it needs."""

    lease: Word


class LaneUnready(StewardEvent, frozen=True):
    """Answers PrepareLane: it cannot. `retryable` false when the work itself is at fault (not a model)."""

    lease: Word
    code: Label
    what: Text
    retryable: bool


class PeerClaimedBatch(StewardEvent, frozen=True, tag="LaneAnswered"):
    """A `LaneClaimed` from Watch: the root over `count` lane tasks worth `units`, numbers from `first` on. The
    interpreter has compared root, count and units with the answers that it got on the lane itself. `setting` is what
    the lane was opened with, None before leaves named it. `paid` of the answers earn something and can be compared;
    `refused` were refused for reasons of the provider's own."""

    lease: Word
    sequence: U64
    claim: Signed
    claim_hash: Word
    first: U64
    count: U64
    units: U64
    setting: LaneSetting | None = None
    paid: U64 | None = None
    refused: U64 = 0


class LaneAudited(StewardEvent, frozen=True):
    """Answers AuditLane: all tasks at the asked indexes were done again elsewhere, with equal answers. `auditors` are
    the leases that did so."""

    lease: Word
    claim_hash: Word
    auditors: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]


class LaneCaught(StewardEvent, frozen=True):
    """Answers AuditLane: at one index, `others` (two or more accounts) agree on another answer than `accused`."""

    lease: Word
    claim_hash: Word
    task: TaskSpec
    accused: Evidence
    others: Annotated[tuple[Evidence, ...], msgspec.Meta(min_length=2, max_length=8)]


class LaneUnchecked(StewardEvent, frozen=True):
    """Answers AuditLane: it could not be done (`what` says why); the batch stays provisional."""

    lease: Word
    claim_hash: Word
    what: Text


class Replayed(StewardEvent, frozen=True):
    """Answers ReplayTask: what our own machine gives. `answer` is the hash of its output."""

    lease: Word
    claim_hash: Word
    answer: Word


class NotReplayed(StewardEvent, frozen=True):
    """Answers ReplayTask: it could not be done here (`what` says why)."""

    lease: Word
    claim_hash: Word
    what: Text


class PeerTookVoucher(StewardEvent, frozen=True, tag="PeerPaid"):
    """Answers Pay: the provider has the voucher."""

    lease: Word
    cumulative_ucr: U64


class LedgerSlashed(StewardEvent, frozen=True):
    """Answers Charge."""

    lease: Word
    task: Word
    slashed_ucr: U64


class LedgerRefusedCharge(StewardEvent, frozen=True):
    """Answers Charge with a no."""

    lease: Word
    task: Word
    reason: Refusal


class LedgerClosed(StewardEvent, frozen=True):
    """Answers EndLease, or the provider closed on its own: the bank's settlement says closed."""

    lease: Word
    paid_ucr: U64
    refunded_ucr: U64
    slashed_ucr: U64


AnyStewardEvent = (
    StewardStarted | ClockTicked | UserSubmitted | UserCancelled | OffersGathered | PeerQuoted | PeerDeclined
    | PeerSigned | LedgerOpened | LedgerRefusedEscrow | PeerClaimed | PeerFailed | PeerLeaving | PeerUnobserved
    | PeerObserved | BlobKept | BlobMissing | AuditorsDrawn | LedgerRefusedDraw | LaneLoaded | LaneUnready
    | PeerClaimedBatch | LaneAudited | LaneCaught | LaneUnchecked | Replayed | NotReplayed | PeerTookVoucher
    | LedgerSlashed | LedgerRefusedCharge | LedgerClosed
)  # fmt: skip


# effects --------------------------------------------------------------------------------------------------------------


class StewardEffect(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Base of what the brain asks for."""


class FindOffers(StewardEffect, frozen=True):
    """Search all directories for offers of `kind` (1000 at most), that have what the job needs if there are such.
    -> OffersGathered."""

    job: Word
    kind: Label
    ram_bytes: U64 = 0
    disk_bytes: U64 = 0
    max_price_ucr: U64 = 0


class AskQuote(StewardEffect, frozen=True):
    """Sign `order` and send it as RequestQuote. -> PeerQuoted or PeerDeclined. `seat` is this job's number for the
    place that the provider may take; it names the negotiation until there is a lease."""

    job: Word
    seat: U64
    peer: NodeAddress
    order: Order


class ProposeLease(StewardEffect, frozen=True):
    """Complete `terms` (its `order` and `quote` hashes are set), sign it and send it as SignLease. -> PeerSigned or
    PeerDeclined."""

    job: Word
    seat: U64
    peer: NodeAddress
    terms: Lease


class FundEscrow(StewardEffect, frozen=True):
    """At the bank, with our own certificate and the provider's. -> LedgerOpened or LedgerRefusedEscrow."""

    lease: Word
    ours: Signed
    theirs: Signed
    provider_certificate: Signed


class Watch(StewardEffect, frozen=True):
    """Keep a WatchLease stream open to the peer, from after `after_sequence` (resuming where the interpreter is, if it
    watches already). -> PeerClaimed, PeerFailed, PeerLeaving, PeerClaimedBatch; PeerUnobserved and PeerObserved when
    the stream breaks and comes back. Ends with LedgerClosed."""

    lease: Word
    peer: NodeAddress
    after_sequence: U64


class PrepareLane(StewardEffect, frozen=True):
    """Have the peer load what lane tasks of `work` need. -> LaneLoaded or LaneUnready."""

    lease: Word
    peer: NodeAddress
    work: Work


class Assign(StewardEffect, frozen=True):
    """Send `spec` as AssignTask; the interpreter puts its own address before `sources`. -> PeerClaimed or PeerFailed. A
    task that failed at a peer is never assigned to the same lease again under the same id."""

    lease: Word
    peer: NodeAddress
    task: Word
    spec: TaskSpec
    sources: Sources


class Cancel(StewardEffect, frozen=True):
    """Tell the peer that nobody waits for the task. No answer; not repeated by `outstanding`."""

    lease: Word
    peer: NodeAddress
    task: Word


class KeepBlob(StewardEffect, frozen=True):
    """Fetch the blob of `part` from `sources` into our own store and pin it for the job. -> BlobKept or BlobMissing
    (after a bounded time without progress). A claim counts only when its outputs are here: a hash without data is no
    work."""

    job: Word
    part: Part
    sources: Sources


class LetGo(StewardEffect, frozen=True):
    """The opposite of KeepBlob: the job needs the blob no more, which may make room for others. No answer, not repeated
    by `outstanding`: what was not let go is so with the end of the job."""

    job: Word
    blob: Word


class Prefetch(StewardEffect, frozen=True):
    """Tell the peer to fetch `part` from us before a task asks for it, as PrefetchBlobs. No answer, never repeated: a
    peer that did not hear it fetches when it must."""

    lease: Word
    peer: NodeAddress
    part: Part


class Draw(StewardEffect, frozen=True):
    """Ask the bank for the randomness of `claim`, as DrawAuditors. -> AuditorsDrawn or LedgerRefusedDraw."""

    lease: Word
    claim_hash: Word
    claim: Signed


class AuditLane(StewardEffect, frozen=True):
    """Do some lane tasks of the batch that begins at `first` again (`indexes` are places among those of its answers
    that are paid for) on the lanes of `auditors`, in that
    order of preference, as ordinary tasks among others, until `quorum` equal answers, the claimed one counted, stand
    against none, or an answer has the word of `quorum` (and 2) accounts other than the accused's. The interpreter must
    keep the params and answers of batches until LedgerClosed. -> LaneAudited, LaneCaught or LaneUnchecked."""

    lease: Word
    claim_hash: Word
    first: U64
    indexes: Annotated[tuple[U64, ...], msgspec.Meta(max_length=4096)]
    auditors: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
    quorum: U64


class ReplayTask(StewardEffect, frozen=True):
    """Do the task of a claim again on our own machine, if it computes as `numerics` says (EXACT, a class, or "" where
    any does); `sources` may have its inputs. -> Replayed or NotReplayed."""

    job: Word
    lease: Word
    claim_hash: Word
    spec: TaskSpec
    numerics: Label
    sources: Sources


class Pay(StewardEffect, frozen=True):
    """Sign a voucher over `cumulative_ucr` in all and send it as PayVoucher; a higher one replaces it.
    -> PeerTookVoucher."""

    lease: Word
    peer: NodeAddress
    cumulative_ucr: U64


class Charge(StewardEffect, frozen=True):
    """Sign a verdict (claimed: `accused.output`, accepted: the others' output, `slash_ucr`) and bring it to the bank as
    Slash. -> LedgerSlashed or LedgerRefusedCharge."""

    lease: Word
    task: Word
    spec: TaskSpec
    accused: Evidence
    others: Annotated[tuple[Evidence, ...], msgspec.Meta(min_length=2, max_length=8)]
    slash_ucr: U64


class EndLease(StewardEffect, frozen=True):
    """Settle: when `cumulative_ucr` > 0 bring the voucher over it to the provider *and* (Redeem) to the bank, so that
    a dead provider is paid too; ask the provider to close (CloseLease); where it does not, close the escrow alone at
    the bank once `ends_ms` has passed. -> LedgerClosed."""

    lease: Word
    peer: NodeAddress
    cumulative_ucr: U64
    ends_ms: U64


class Note(StewardEffect, frozen=True):
    """Becomes the JobNote with the same fields; `number` counts up from 1 within the job. The interpreter makes
    transient progress and log notes itself."""

    job: Word
    number: U64
    at_ms: U64
    kind: Label
    text: Text
    node: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    done: U64 = 0
    total: U64 = 0


class Agreeing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Another account's equal claim: with its signed lease, so that anyone can check who it was."""

    account: Address
    lease: Signed
    claim: Signed


class KeepReceipt(StewardEffect, frozen=True):
    """A claim became final; make a receipt of it. Key: (`lease`, `claim_hash`). `check` is "checked", "replayed",
    "sampled", "cleared", "unchecked" or "none" and `reason` says it in words; `agreeing` are the equal claims of
    others, or of the one who did a sample again. These were drawn by `seed`, the randomness of the claim `drawn_for`
    (None: of this one); `undrawn` would have been next. `drawn` are the accounts that the bank drew for it by stake,
    `outside` those who were there to check alone. `spec` and `output` are None for a lane batch. `paid_ucr` is this
    claim's own share."""

    job: Word
    lease: Word
    terms: Lease
    ours: Signed
    theirs: Signed
    provider_certificate: Signed
    claim_hash: Word
    claim: Signed
    spec: TaskSpec | None
    output: TaskOutput | None
    units: U64
    paid_ucr: U64
    check: Label
    reason: Label
    agreeing: Annotated[tuple[Agreeing, ...], msgspec.Meta(max_length=16)]
    seed: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    drawn_for: Evidence | None = None
    undrawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_UNDRAWN)] = ()
    drawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_DRAWN)] = ()
    outside: tuple[Address, ...] = ()


class JobEnded(StewardEffect, frozen=True):
    """The job's outcome, before or while its leases settle. `code` is "" for success; else an error code, `what` in
    words. `outputs` are the final ones in task order (for training: the one of the finishing task); None where there
    is none. Everything in them is in our own store."""

    job: Word
    code: Label
    what: Text
    outputs: tuple[TaskOutput | None, ...]


RECORDS = (Note, KeepReceipt, JobEnded)
