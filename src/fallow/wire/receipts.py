"""What a user keeps: one file that shows who agreed to what, what was computed, how it was checked and what was paid,
and that anyone can check again with nothing but the file (`wire/receipt_checks.py`).

A receipt is sealed by the requester's account: the file is the receipt's canonical bytes and a signature over their
BLAKE3 hash, so that no byte can change. Everything inside carries the signature of whoever said it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from blake3 import blake3

from fallow.errors import FallowError, fail
from fallow.units import Digest
from fallow.wire.claims import lane_leaf, params_hash, setting_hash, task_id, task_leaf, value_hash
from fallow.wire.claims import output_hash as hash_output
from fallow.wire.codec import decode, encode
from fallow.wire.documents import U64, Address, ClaimRoot, Lease, ReceiptSeal, Signed, Word
from fallow.wire.eip712 import sign
from fallow.wire.ledger import MAX_DRAWN, Evidence
from fallow.wire.messages import Text
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, LaneSetting, TaskOutput, TaskSpec

MAX_RECEIPT_BYTES = 1 << 22
MAX_UNDRAWN = 16

Verdicts = Literal["provisional", "accepted", "rejected", "cleared", "voided"]
"""What became of a claim. "provisional": nothing yet, a check may still come. "accepted": others computed the same.
"rejected": others agree on something else, nothing is owed. "cleared": not drawn for a check, and the policy let it
pass. "voided": nothing is owed, because its provider was caught with another claim, or because it came too late or was
never checked."""


class TaskWork(msgspec.Struct, frozen=True, tag="task", forbid_unknown_fields=True, array_like=True):
    """An assigned task and the output that the provider claimed for it."""

    task: TaskSpec
    output: TaskOutput


class LaneWork(msgspec.Struct, frozen=True, tag="lane", forbid_unknown_fields=True, array_like=True):
    """A lane task and the answer that the provider claimed for it. `checked_as` is the assigned task that auditors ran
    instead, when they did not answer it on lanes of their own; it must have the same kind, params and seed."""

    number: U64
    params: Annotated[bytes, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    seed: U64
    value: Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    units: U64
    checked_as: TaskSpec | None = None


class NamedLaneWork(LaneWork, frozen=True, tag="lane 2"):
    """The same with what the lane was opened with, which its leaves name: the model, the adapter, the context. Always
    there; a type of its own, so that receipts of before keep their bytes."""

    setting: LaneSetting | None = None


class FormerReceipt(msgspec.Struct, frozen=True, tag="receipt 1", forbid_unknown_fields=True, array_like=True):
    """Everything about one finished piece of work, for somebody who was there. `quote` and `provider_signature` are
    signed by the provider, `order` and `lease` by the requester. `index` and `path` lead from the work's leaf to the
    root in `claim`. `evidence` holds the auditors' claims about the same work. `voucher` is the last one under the
    lease, None when nothing was ever owed; `units_final` the units that it pays for, over all final work under the
    lease, 0 when not known any more. `charge` is the requester's Verdict document when it asked the bank to slash.
    `settlement` is the bank's word, as far as it was known."""

    made_ms: U64
    job: Word
    order: Signed
    quote: Signed
    lease: Signed
    provider_signature: Signed
    requester_certificate: Signed
    provider_certificate: Signed
    claim: Signed
    work: TaskWork | LaneWork | NamedLaneWork
    index: U64
    path: Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)]
    policy: Text
    verdict: Verdicts
    evidence: Annotated[tuple[Evidence, ...], msgspec.Meta(max_length=16)] = ()
    units_final: U64 = 0
    voucher: Signed | None = None
    charge: Signed | None = None
    settlement: Signed | None = None
    notes: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()

    @property
    def owed(self) -> bool:
        """Whether the verdict says that this work is to be paid."""
        return self.verdict in ("accepted", "cleared")


class Receipt(FormerReceipt, frozen=True, tag="receipt 2"):
    """The same with the bank's word on those who checked, for readers who were not there. `sampled` is the claim of
    whoever did a drawn part of the work again, where not all of it was. `standings` are the Settlements of the leases
    of all auditors. `draw` is the AuditDraw of the claim that was checked, which is `drawn_for`, or the receipt's own
    where that is None; `undrawn` are some of the accounts that could have been asked too, and come after those that
    were. `drawn` are the accounts that the draw names by their stakes; `outside` those of all these that held no lease
    for work in the job, as the requester says, who come first."""

    sampled: Evidence | None = None
    standings: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=16)] = ()
    draw: Signed | None = None
    drawn_for: Evidence | None = None
    undrawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_UNDRAWN)] = ()
    drawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_DRAWN)] = ()
    outside: Annotated[tuple[Address, ...], msgspec.Meta(max_length=4 * MAX_UNDRAWN)] = ()


AnyReceipt = FormerReceipt | Receipt


class SealedReceipt(msgspec.Struct, frozen=True, tag="sealed receipt", forbid_unknown_fields=True, array_like=True):
    """The file: the canonical bytes of an AnyReceipt and the requester's ReceiptSeal over them."""

    body: Annotated[bytes, msgspec.Meta(max_length=MAX_RECEIPT_BYTES)]
    seal: Signed


def seal(receipt: FormerReceipt, account_secret: bytes) -> bytes:
    """The receipt as a file, sealed by the requester. Does not check what the receipt says. Raises ValueError for one
    that is too large or has no readable lease."""
    body = encode(receipt)
    try:
        lease = decode(Lease, receipt.lease.body)
        decode(AnyReceipt, body, MAX_RECEIPT_BYTES)
    except FallowError as error:
        raise ValueError(f"not a receipt: {error}") from None
    data = encode(SealedReceipt(body, sign(ReceiptSeal(blake3(body).digest()), account_secret, lease.bank)))
    if len(data) > MAX_RECEIPT_BYTES:
        raise ValueError(f"a receipt of {len(data)} bytes; at most {MAX_RECEIPT_BYTES} can be kept")
    return data


def read_receipt(data: bytes) -> Receipt:
    """What a receipt file says, unchecked, to be shown beside the result of `verify`; one of the form before lacks what
    came with this one. Raises RejectedError E1501 when it cannot be read at all."""
    try:
        return open_receipt(decode(SealedReceipt, data, MAX_RECEIPT_BYTES))
    except FallowError as error:
        raise fail("E1501", "this is no receipt, or a damaged one", cause=error.what) from None


def open_receipt(sealed: SealedReceipt) -> Receipt:
    """Raises PeerFault E1102 for what is no receipt."""
    found: AnyReceipt = decode(AnyReceipt, sealed.body, MAX_RECEIPT_BYTES)
    return found if isinstance(found, Receipt) else Receipt(*msgspec.structs.astuple(found))


def receipt_id(data: bytes) -> Digest:
    """The name of a receipt: the BLAKE3 hash of the file."""
    return Digest(blake3(data).digest())


def work_units(receipt: Receipt) -> int:
    """What the work costs: a task what its claim comes to, and at most what it was metered at where that claim is about
    others too. Raises PeerFault E1102 for what is no claim."""
    if not isinstance(receipt.work, TaskWork):
        return receipt.work.units
    claim = decode(ClaimRoot, receipt.claim.body)
    return claim.units if claim.count == 1 else receipt.work.task.units


def work_output(receipt: Receipt) -> Digest:
    """The hash of the answer, as auditors compare it."""
    if isinstance(receipt.work, TaskWork):
        return hash_output(receipt.work.output)
    return value_hash(receipt.work.value)


def work_leaf(receipt: Receipt) -> Digest:
    """The leaf that the provider's claim root must hold for the receipt's work. Raises as `work_units` does."""
    work, output = receipt.work, work_output(receipt)
    if isinstance(work, TaskWork):
        return task_leaf(task_id(work.task), output, work_units(receipt))
    params, setting = params_hash(work.params), work_setting(receipt)
    return lane_leaf(work.number, params, work.seed, output, work.units, setting)


def work_setting(receipt: Receipt) -> bytes:
    """The hash by which leaves name the lane of the receipt's work; b"" for an assigned task, or a lane of before."""
    setting = receipt.work.setting if isinstance(receipt.work, NamedLaneWork) else None
    return setting_hash(setting) if setting is not None else b""


def work_task(receipt: Receipt, kind: str) -> TaskSpec:
    """The task that auditors were given for this work; `kind` is the lease's. For a lane task without `checked_as` it
    names what lane leaves are made of, and nothing else."""
    work = receipt.work
    if isinstance(work, TaskWork):
        return work.task
    setting = work.setting if isinstance(work, NamedLaneWork) else None
    inputs = setting.inputs if setting is not None else ()
    return work.checked_as or TaskSpec(kind, work.params, inputs, work.seed, work.units, 0, 0)
