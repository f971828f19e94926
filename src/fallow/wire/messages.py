"""Messages between nodes. Each request names its reply in its docstring; `wire/frames.py` says how they are framed on a
stream and `node/rpc.py` answers them. All are strict: unknown fields are refused, sizes are bounded, and a message
that does not re-encode to the bytes it came in is refused (`wire/codec.py`)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64, Address, Label, Signed, Word
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, Part, TaskOutput, TaskSpec

Text = Annotated[str, msgspec.Meta(max_length=4000)]
Params = Annotated[bytes, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
Value = Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Base of everything that travels."""


class NodeAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Where a node can be dialled: its key, "host:port" pairs, and a relay's URL or ""."""

    node: Word
    direct: Annotated[tuple[Label, ...], msgspec.Meta(max_length=16)] = ()
    relay: Label = ""


class Ok(Message, frozen=True):
    """Done, nothing to tell."""


class Failure(Message, frozen=True):
    """The call failed; the sanitized form of a FallowError. Never carries a traceback or a path."""

    code: Label
    what: Text
    cause: Text = ""
    money: Text = ""
    next_step: Text = ""


# offers ---------------------------------------------------------------------------------------------------------------


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    card: Label
    name: Label
    ram_bytes: U64


EXACT = "exact-1"
"""The class of numerics of version 1 of exact arithmetic (`docs/spec/exact-arithmetic.md`): every machine is in it that
computes it."""


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Measured, not declared. `numerics` names the class of machines that give the same bits for the same fp32 work
    (CPU family, instruction set, library versions, threads): only like may audit like. `exact` is EXACT where the
    machine has reproduced the vectors of exact arithmetic, else why it has not; those that have may audit each other,
    whatever they are."""

    cpu: Label
    cpu_millis: U64
    ram_bytes: U64
    disk_bytes: U64
    gpus: Annotated[tuple[Gpu, ...], msgspec.Meta(max_length=64)]
    numerics: Label
    exact: Label = ""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One kind of work on offer: the lowest price and the speed measured by a benchmark of that kind."""

    kind: Label
    price_ucr: U64
    units_per_s: U64


class Offer(Message, frozen=True):
    """A provider's expiring advert. `hardware` is what is free now. `certificate` binds the node to its account."""

    account: Address
    address: NodeAddress
    certificate: Signed
    hardware: Hardware
    rates: Annotated[tuple[Rate, ...], msgspec.Meta(max_length=32)]
    bank: Address
    stake_ucr: U64
    region: Label
    issued_ms: U64
    ttl_s: U64


class SignedOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The offer's received bytes and the node key's Ed25519 signature over them (`wire/certificates.py`)."""

    body: Annotated[bytes, msgspec.Meta(max_length=16384)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class PublishOffer(Message, frozen=True):
    """To a directory; -> Ok. The sender must be the offer's node."""

    offer: SignedOffer


class SearchOffers(Message, frozen=True):
    """To a directory; -> OffersFound: those with the most stake first. `kind` "" finds all kinds. `after` is the last
    node of the page before. Offers must have as much as `ram_bytes` and `disk_bytes`, settle at `bank` (b"": any) and
    ask no more than `max_price_ucr` for the kind (0: any price)."""

    kind: Label
    after: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 100
    bank: Annotated[bytes, msgspec.Meta(max_length=20)] = b""
    ram_bytes: U64 = 0
    disk_bytes: U64 = 0
    max_price_ucr: U64 = 0


class OffersFound(Message, frozen=True):
    offers: Annotated[tuple[SignedOffer, ...], msgspec.Meta(max_length=200)]
    more: bool


# market ---------------------------------------------------------------------------------------------------------------


class Shortfall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Why a provider did not take an order: which resource, how much was wanted, how much there is. For resources that
    are no number ("kind", "bank", "numerics", "owner is active") both are 0 and `note` says it."""

    resource: Label
    wanted: U64
    have: U64
    note: Label = ""


class RequestQuote(Message, frozen=True):
    """To a provider; -> Quoted or Declined. The order is signed by the requester whose certificate comes with it."""

    order: Signed
    certificate: Signed
    contact: NodeAddress


class Quoted(Message, frozen=True):
    quote: Signed


class Declined(Message, frozen=True):
    shortfalls: Annotated[tuple[Shortfall, ...], msgspec.Meta(max_length=32)]


class SignLease(Message, frozen=True):
    """To a provider whose quote won; -> LeaseSigned or Declined. Repeating it is harmless."""

    lease: Signed


class LeaseSigned(Message, frozen=True):
    """The provider's own signature over the same lease."""

    lease: Signed


class AssignTask(Message, frozen=True):
    """To a provider; -> Ok or Failure. Repeating it is harmless: a task that is known is not started again. `sources`
    are nodes that hold the inputs."""

    lease: Word
    task: TaskSpec
    sources: Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=64)]


class PrefetchBlobs(Message, frozen=True):
    """To a provider; -> Ok at once. `parts` will soon be inputs of a task under the lease and can be had from `sources`
    now. Only a hint: the provider may forget it."""

    lease: Word
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=64)]
    sources: Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=64)]


class CancelTask(Message, frozen=True):
    """To a provider; -> Ok."""

    lease: Word
    task: Word


class WatchLease(Message, frozen=True):
    """To a provider; -> a stream of LeaseEvent, from the one after `after_sequence`, kept open. Events of claims and
    failures are durable and come in order; progress and logs are kept for a while only."""

    lease: Word
    after_sequence: U64


class Progress(Message, frozen=True):
    """A running task: `done` of `total` steps."""

    task: Word
    done: U64
    total: U64
    note: Label = ""


class LogLine(Message, frozen=True):
    task: Word
    text: Text


class Claimed(Message, frozen=True):
    """A finished task: the output, and the signed claim root (count 1) that commits the provider to it. `holders` can
    serve the output's blobs."""

    task: Word
    output: TaskOutput
    claim: Signed
    metrics: Annotated[dict[str, int], msgspec.Meta(max_length=64)]
    holders: Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=8)]


class TaskFailed(Message, frozen=True):
    """A task that ended without output. `retryable` is the provider's view: its worker died, its owner came back."""

    task: Word
    code: Label
    what: Text
    retryable: bool


class LaneClaimed(Message, frozen=True):
    """A root over the lane tasks answered since the root before; leaves are in the order of their lane numbers from
    `first` on."""

    claim: Signed
    first: U64


class LeaseLeaving(Message, frozen=True):
    """The provider will stop working under this lease (its owner returned, or it drains)."""

    reason: Label


LeaseBody = Progress | LogLine | Claimed | TaskFailed | LaneClaimed | LeaseLeaving


class LeaseEvent(Message, frozen=True):
    """`sequence` is 0 for events that are not kept."""

    sequence: U64
    at_ms: U64
    body: LeaseBody


class PayVoucher(Message, frozen=True):
    """To a provider; -> Ok."""

    voucher: Signed


class CloseLease(Message, frozen=True):
    """To a provider; -> Ok once it has stopped the work, redeemed its last voucher and closed the escrow."""

    lease: Word


# lanes: many small tasks on one stream --------------------------------------------------------------------------------


class OpenLane(Message, frozen=True):
    """To a provider; -> a stream of one LaneReady, then LaneResult and LaneItem; the caller sends LaneTask and LaneStop
    on it, as soon as it likes. Tasks are answered in any order. At most `window` may be unanswered; one more breaks the
    stream. `inputs` are what the kind of work needs once ("model" and perhaps "adapter" to generate), found at
    `sources`; `context_tokens` bounds prompt and answer together (0: the model's own limit); with `exact` a model that
    has no exact form is refused with E1709. One lane per lease: a new one takes the place of the old."""

    lease: Word
    window: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1024
    inputs: Annotated[tuple[Part, ...], msgspec.Meta(max_length=64)] = ()
    sources: Annotated[tuple[NodeAddress, ...], msgspec.Meta(max_length=64)] = ()
    context_tokens: U64 = 0
    exact: bool = False


class LaneReady(Message, frozen=True):
    """The worker has loaded what the lane needs, in `load_ms`, and can hold `context_tokens` of prompt and answer."""

    load_ms: U64
    context_tokens: U64


class LaneTask(Message, frozen=True, gc=False):
    """One task: `number` counts up from 1 within the lease and never repeats. The kind is the lease's."""

    number: U64
    params: Params
    seed: U64 = 0
    stream: bool = False


class LaneStop(Message, frozen=True):
    """Stop working on `number`; nobody waits for it. It still gets its one LaneResult: of a generate task with what was
    made so far (`finish` CANCELLED), which is owed, or with code E1402 when nothing was."""

    number: U64


class LaneItem(Message, frozen=True, gc=False):
    """The next text of a streamed answer, before its LaneResult. Pieces that come fast are joined: `pieces` is how many
    of the engine's, each of at least one token, there are in it."""

    number: U64
    data: Value
    pieces: U64 = 1


class LaneResult(Message, frozen=True, gc=False):
    """The answer. `code` is "" for success; else `value` is empty and `what` says why, and nothing is owed."""

    number: U64
    value: Value
    units: U64
    code: str = ""
    what: str = ""


class GetLaneLeaves(Message, frozen=True):
    """To a provider; -> LaneLeaves: those of its claim over the lane numbers from `first` on, of which not all answers
    arrived. With them the claim can be checked all the same, and what did arrive is paid."""

    lease: Word
    first: U64


class LaneLeaves(Message, frozen=True):
    """In the order of their lane numbers; empty when they are not at hand any more."""

    leaves: Annotated[tuple[Word, ...], msgspec.Meta(max_length=1 << 17)]


# blobs ----------------------------------------------------------------------------------------------------------------


class BlobStat(Message, frozen=True):
    """To any node; -> BlobFound. `size_bytes` there is None when the node has nothing of it."""

    blob: Word


class BlobFound(Message, frozen=True):
    """`chunks` are the BLAKE3 hashes of the blob's 1 MiB pieces; the reader checks them and the size against the blob's
    id before trusting either (`wire/blob_id.py` says how)."""

    size_bytes: U64 | None
    chunks: Annotated[tuple[Word, ...], msgspec.Meta(max_length=1 << 17)] = ()


class FetchBlob(Message, frozen=True):
    """To any node; -> a stream of raw frames: the bytes from `offset` on, `length_bytes` of them."""

    blob: Word
    offset: U64
    length_bytes: U64
