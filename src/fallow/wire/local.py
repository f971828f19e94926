"""Messages between a node and the programs of its owner (CLI, SDK, gateway) over a Unix socket. One call per
connection, framed as in `wire/frames.py`. Whoever can open the socket is the owner: it lies in a folder of mode 0700.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from fallow.wire.codec import Family
from fallow.wire.documents import U64, Address, Label, Word
from fallow.wire.messages import Declined, Message, NodeAddress, Text
from fallow.wire.tasks import MAX_PARAMS_BYTES, Part, Recipe, TaskOutput


class ModelSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """How large a model is, as its owner measured it (`sdk/model_size.py`); 0 for what is not known. `parameters` is 0
    for a GGUF file, `trained` the numbers that a recipe trains; `kv_width` is how many numbers a token's keys take in
    one layer. A false one harms who says it: its job's tasks run out of memory, and are not paid."""

    stored_bytes: U64 = 0
    parameters: U64 = 0
    trained: U64 = 0
    layers: U64 = 0
    width: U64 = 0
    inner: U64 = 0
    vocabulary: U64 = 0
    kv_width: U64 = 0
    heads: U64 = 0


class Work(Family):
    """What a job is about: its form, with all that the form must know. `rules/steward/shapes/registry.py` says how each
    form is worked on."""

    __slots__ = ()

    @property
    def workload(self) -> str:
        """The kind of work that jobs of this form are of."""
        raise NotImplementedError


class TrainJob(Work, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="train"):
    """Fine-tune the model in tree `model` on the data in tree `data`."""

    model: Word
    data: Word
    recipe: Recipe
    data_bytes: U64
    size: ModelSize = ModelSize()

    workload: ClassVar[str] = "train"  # pyright: ignore[reportIncompatibleMethodOverride]


class BatchJob(Work, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="batch"):
    """Independent tasks of one workload; each of `params` is one task. `inputs` go to all of them."""

    workload: Label  # pyright: ignore[reportIncompatibleMethodOverride]
    params: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=MAX_PARAMS_BYTES)], ...], msgspec.Meta(max_length=100_000)
    ]
    inputs: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]
    units_each: U64


class ServeJob(Work, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="serve"):
    """Keep `replicas` providers holding the model (and the adapter, when given) under `name`, answering `generate`
    lanes until cancelled or out of budget. `context_tokens` bounds prompt and answer together. `arithmetic` is "exact"
    where every answer must be the same on any machine and commit to its logits, so that any may check any; a model
    without an exact form is refused then. With "fp32" machines of one class check each other."""

    name: Label
    model: Word
    adapter: Annotated[bytes, msgspec.Meta(max_length=32)]
    replicas: U64
    context_tokens: U64
    arithmetic: Label = "fp32"
    size: ModelSize = ModelSize()

    @property
    def exact(self) -> bool:
        """Whether any machine can check any other's answers."""
        return self.arithmetic == "exact"

    workload: ClassVar[str] = "generate"  # pyright: ignore[reportIncompatibleMethodOverride]


class LaneJob(Work, msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="lane"):
    """Keep `replicas` providers ready for many small tasks of one workload, sent over `OpenJobLane`."""

    workload: Label  # pyright: ignore[reportIncompatibleMethodOverride]
    replicas: U64


CHECKED, UNCHECKED = "audit", "none"
"""How results are verified when nobody says, and where comparing them would accuse honest providers."""


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A job as its owner wants it. `budget_ucr` is the most it may ever cost; `workers` how many providers work side by
    side; `prefer` is "price" or "speed"; `verify` is "none", "audit" or "audit:probation=1,rate=0.1,quorum=2"."""

    work: Work
    budget_ucr: U64
    max_price_ucr: U64
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    prefer: Label = "price"
    verify: Label = CHECKED
    timeout_s: U64 = 24 * 3600
    name: Label = ""


class ImportPath(Message, frozen=True):
    """-> Imported. Takes a file or folder of the owner's into the blob store as a tree."""

    path: Annotated[str, msgspec.Meta(max_length=4096)]


class Imported(Message, frozen=True):
    tree: Word
    size_bytes: U64
    files: U64


class ExportTree(Message, frozen=True):
    """-> Ok. Writes a tree or, with `name`, a single blob, under `path`, fetching what is missing."""

    tree: Word
    path: Annotated[str, msgspec.Meta(max_length=4096)]
    name: Label = ""


class SubmitJob(Message, frozen=True):
    """-> Submitted, after the job is on disk. Submitting one id twice is harmless."""

    job: Word
    spec: JobSpec


class Submitted(Message, frozen=True):
    job: Word


class EstimateJob(Message, frozen=True):
    """-> Estimate. Asks the directories, spends nothing."""

    spec: JobSpec


class WhyJob(Message, frozen=True):
    """-> Estimate for what is left of a job that was submitted before; Failure E2002 for an unknown one."""

    job: Word


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A provider and whether it fits; `shortfalls` is empty when it does."""

    account: Address
    node: Word
    price_ucr: U64
    units_per_s: U64
    shortfalls: Declined


class Estimate(Message, frozen=True):
    """`units` of work in all, without checks; the cost with checks at the cheapest and dearest fitting offers."""

    units: U64
    low_ucr: U64
    high_ucr: U64
    candidates: Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=1000)]


class ListJobs(Message, frozen=True):
    """-> JobList, newest first."""


class JobView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a person wants to know of a job. `phase` is one of "starting", "running", "settling", "done", "failed",
    "cancelled"; `failure` is set for "failed". `done`/`total` count final tasks (or rounds when training).
    `served_name` is set for serve jobs; `workload` is the kind of work that its tasks are of."""

    job: Word
    kind: Label
    name: Label
    phase: Label
    done: U64
    total: U64
    budget_ucr: U64
    spent_ucr: U64
    locked_ucr: U64
    created_ms: U64
    ended_ms: U64
    failure_code: Label
    failure: Text
    leases: Annotated[tuple[LeaseView, ...], msgspec.Meta(max_length=4096)]
    rounds: Annotated[tuple[RoundView, ...], msgspec.Meta(max_length=4096)]
    served_name: Label = ""
    workload: Label = ""


class LeaseView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """`state`: "offered", "open", "unobserved", "leaving", "lost", "banned", "closed". Units are provisional (claimed)
    and final (checked or cleared)."""

    lease: Word
    account: Address
    node: Word
    state: Label
    price_ucr: U64
    tasks_claimed: U64
    units_claimed: U64
    units_final: U64
    paid_ucr: U64
    slashed_ucr: U64


class RoundView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """`state` is the hash all workers agreed on at the start of the round; `agreed` tells whether they all did."""

    round: U64
    updates: U64
    state: Annotated[bytes, msgspec.Meta(max_length=32)]
    agreed: bool
    loss: Label
    bytes_sent: U64


class JobList(Message, frozen=True):
    jobs: Annotated[tuple[JobView, ...], msgspec.Meta(max_length=10_000)]


class GetJob(Message, frozen=True):
    """-> JobView wrapped as JobOf; Failure E2002 for an unknown id. `prefix` is the id or its unique beginning."""

    prefix: Annotated[bytes, msgspec.Meta(max_length=32)]


class JobOf(Message, frozen=True):
    job: JobView


class WatchJob(Message, frozen=True):
    """-> a stream of JobNote from the one after `after`, ending after the note of the job's end, or without `follow`
    after the last note so far."""

    job: Word
    after: U64 = 0
    follow: bool = True


class JobNote(Message, frozen=True):
    """Something a person may want to read. `kind` is "phase", "lease", "progress", "log", "claim", "check", "caught",
    "round", "paid", "warning" or "failed"; `done`/`total` are set for progress."""

    number: U64
    at_ms: U64
    kind: Label
    text: Text
    node: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    done: U64 = 0
    total: U64 = 0


class CancelJob(Message, frozen=True):
    """-> Ok; what was done until now is paid, the rest comes back."""

    job: Word


class GetResults(Message, frozen=True):
    """-> JobResults; Failure E1403 with the reason while there are none."""

    job: Word


class JobResults(Message, frozen=True):
    """Final outputs in task order; `tree` is the result folder of a training job."""

    outputs: Annotated[tuple[TaskOutput, ...], msgspec.Meta(max_length=100_000)]
    tree: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class ListReceipts(Message, frozen=True):
    """-> ReceiptList of a job's receipts."""

    job: Word


class ReceiptList(Message, frozen=True):
    receipts: Annotated[tuple[Word, ...], msgspec.Meta(max_length=100_000)]


class GetReceipt(Message, frozen=True):
    """-> ReceiptBytes; `prefix` is a receipt's id or its unique beginning."""

    prefix: Annotated[bytes, msgspec.Meta(max_length=32)]


class ReceiptBytes(Message, frozen=True):
    """A sealed receipt as `wire/receipts.py` reads it."""

    body: Annotated[bytes, msgspec.Meta(max_length=1 << 22)]


class LayOut(Message, frozen=True):
    """-> LaidOut. Makes inputs and outputs of the work in a receipt of the owner's own appear under the folder `path`,
    read-only; what is not here any more is fetched from the job's providers, at most `limit_bytes` in all. Without
    `parts`: the model and the adapter that a lane's job serves. Failure E1501 for a receipt that does not hold, E2002
    for one that another account sealed or that does not name a part."""

    receipt: Annotated[bytes, msgspec.Meta(max_length=1 << 22)]
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]
    path: Annotated[str, msgspec.Meta(max_length=4096)]
    limit_bytes: U64


class LaidOut(Message, frozen=True):
    """The parts that were asked for, and for each the file or folder where it lies, "" where nobody has it.
    `context_tokens` is what a lane's job is served with, 0 for other jobs and unknown ones."""

    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]
    paths: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=8192)], ...], msgspec.Meta(max_length=4096)]
    context_tokens: U64 = 0


class SeeOffers(Message, frozen=True):
    """-> OffersSeen: the live offers that the node's directories know."""


class OffersSeen(Message, frozen=True):
    """Raw signed offers, checked by the node."""

    offers: Annotated[tuple[Annotated[bytes, msgspec.Meta(max_length=1 << 15)], ...], msgspec.Meta(max_length=10_000)]


class SeeWallet(Message, frozen=True):
    """-> Wallet."""


class Wallet(Message, frozen=True):
    account: Address
    bank: Address
    available_ucr: U64
    escrowed_ucr: U64
    staked_ucr: U64
    bonded_ucr: U64
    unbonding_ucr: U64
    earned_ucr: U64
    slashed_ucr: U64


class SeeBooks(Message, frozen=True):
    """-> PoolBooks: the pool's whole books in one line."""


class PoolBooks(Message, frozen=True):
    """`minted_ucr` must equal `sum_ucr`; anyone in the pool may look."""

    minted_ucr: U64
    sum_ucr: U64
    accounts: U64
    open_escrows: U64


class MoveMoney(Message, frozen=True):
    """-> Ok. `action` is "deposit", "unbond", "transfer" (to `to`) or, for the pool's operator, "grant" (to `to`)."""

    action: Label
    amount_ucr: U64
    to: Annotated[bytes, msgspec.Meta(max_length=20)] = b""


class AnswerCharge(Message, frozen=True):
    """-> Ok. Say something to the charge that is open under `lease`: "appeal", when it is charged to this account, or,
    as the pool's referee, "upheld" or "overturned"."""

    lease: Word
    answer: Label


class SeeNode(Message, frozen=True):
    """-> NodeView: what this node is and does."""


class NodeView(Message, frozen=True):
    """`ticket` is the line that another machine joins with ("" unless this node runs the pool)."""

    version: Label
    account: Address
    address: NodeAddress
    roles: Annotated[tuple[Label, ...], msgspec.Meta(max_length=8)]
    bank: Address
    ticket: Annotated[str, msgspec.Meta(max_length=4000)]
    provider: Text
    pid: U64


class ServedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    name: Label
    job: Word
    context_tokens: U64
    ready: U64
    created_ms: U64
    price_ucr: U64
    """The most that 1,000 tokens can cost: the job's price bound."""


class ListModels(Message, frozen=True):
    """-> ModelList: serve jobs that are running."""


class ModelList(Message, frozen=True):
    models: Annotated[tuple[ServedModel, ...], msgspec.Meta(max_length=1000)]


class OpenJobLane(Message, frozen=True):
    """-> a stream: the caller sends LaneTask (numbers of its own choice) and gets LaneItem and LaneResult back. The
    node spreads the tasks over the job's leases, moves them when a provider dies (a streamed generate task goes on
    where it stopped), checks samples, and pays. After each LaneResult of a task with `stream` or `receipts` set, a
    LaneReceipt follows. A PaidTask may be sent in place of any LaneTask."""

    job: Word
    receipts: bool = False


class PaidTask(Message, frozen=True, gc=False):
    """On a lane: a streamed task that a key pays for. Before anybody works on it, `amount_ucr` is reserved on the key
    with this `secret`; LaneResult E1902 for a wrong key, E1905 when its budget does not cover it. When the task has
    ended, its units at `price_ucr` for 1,000 are booked, at most what was reserved, and the rest is free again; also
    when its client has stopped it or gone away. Nothing of the answer is told before the reservation is on disk, and
    not its end before the booking is. A node that starts again frees what was reserved: nothing is under way then."""

    number: U64
    params: bytes
    seed: U64
    secret: Label
    amount_ucr: U64
    price_ucr: U64


class LaneReceipt(Message, frozen=True):
    """The id under which the receipt of lane task `number` will be found, once its claim is signed."""

    number: U64
    receipt: Word


class MakeKey(Message, frozen=True):
    """-> KeyMade. A gateway key that may spend `budget_ucr` in all."""

    label: Label
    budget_ucr: U64


class KeyMade(Message, frozen=True):
    """`secret` is shown once; the node keeps its hash only."""

    secret: Label


class KeyView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    prefix: Label
    label: Label
    budget_ucr: U64
    spent_ucr: U64
    revoked: bool


class ListKeys(Message, frozen=True):
    """-> KeyList."""


class KeyList(Message, frozen=True):
    keys: Annotated[tuple[KeyView, ...], msgspec.Meta(max_length=10_000)]


class ChangeKey(Message, frozen=True):
    """-> Ok. Adds to the budget of, or revokes, the key whose secret starts with `prefix`."""

    prefix: Label
    add_ucr: U64 = 0
    revoke: bool = False


class CheckKey(Message, frozen=True):
    """-> Ok, or Failure E1902 for a secret that is no key's, or a revoked one's."""

    secret: Label
