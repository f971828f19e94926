"""What of a receipt's work its owner does again, and what it proves when it agrees. Kinds say how (`kinds/replay.py`);
what each task must give is in the receipt, so the verdict is a comparison of hashes.

Defends against: receipts that ask for work or memory without end, that name foreign programs, or one input twice.
Whether a receipt's signatures hold is for `wire/receipt_checks.py`, before this. Does not defend against: a cheat in
what was not drawn; a task that was wrong from the start."""

from __future__ import annotations

from fallow.errors import FallowError
from fallow.kinds.registry import KINDS, kind_named
from fallow.kinds.replay import ClaimedWork, Difference, NoReplay, Piece, Replay, ReplayPlan, Report
from fallow.rules import trust
from fallow.wire import codec
from fallow.wire.documents import Order
from fallow.wire.receipts import LaneWork, Receipt
from fallow.wire.tasks import TaskOutput, TaskSpec

ALL_LINKS = 1 << 16
"""More links than any round has."""
DEFAULT_LINKS = 2
MAX_TOKENS = 1 << 28
"""What is done again at most: days on one machine."""


def plan(receipt: Receipt, links: int, seed: bytes) -> ReplayPlan | NoReplay:
    """What to do again for a receipt that holds: `links` of a round's links, drawn by `seed`, or the whole of anything
    else. Raises nothing, whatever the receipt says."""
    try:
        claimed = _claimed(receipt)
        task = claimed.task
        if len({part.name for part in task.inputs}) != len(task.inputs):
            return NoReplay("E1707", "The receipt's task names one input twice.")
        side = replay_of(task.kind)
        if side is not None:
            found = side.plan(claimed, lambda count: trust.draw_links(seed, count, links))
            return found if isinstance(found, NoReplay) else _bounded(found)
    except FallowError as error:
        return NoReplay("E1707", f"The receipt's task cannot be read: {error.what}.")
    what = f"A task of kind {task.kind[:40]!r} has nothing to be done again: any answer that it gives is its own input."
    return NoReplay("E1504", what, "Read what fallow verify says of its signatures and its money.")


def replay_of(kind: str) -> Replay | None:
    """How the work of `kind` is done again; None where it is not, or nobody knows the kind."""
    return KINDS[kind].replay if kind in KINDS else None


def _claimed(receipt: Receipt) -> ClaimedWork:
    order, work = codec.decode(Order, receipt.order.body), receipt.work
    if not isinstance(work, LaneWork):
        return ClaimedWork(work.task, work.output, order.numerics)
    inputs = work.checked_as.inputs if work.checked_as is not None else ()
    ram = kind_named(order.kind).usual_ram_bytes
    task = TaskSpec(order.kind, work.params, inputs, work.seed, work.units, 0, ram)
    return ClaimedWork(task, TaskOutput(work.value, ()), order.numerics, lane=True)


def _bounded(found: ReplayPlan) -> ReplayPlan | NoReplay:
    if found.tokens > MAX_TOKENS:
        what = f"That would be {found.tokens:,} tokens to compute; this command does at most {MAX_TOKENS:,}."
        return NoReplay("E1504", what, "Draw fewer links with --links.")
    return found


def served_with(found: ReplayPlan, context_tokens: int) -> ReplayPlan:
    """The plan for an answer that was served with a context of `context_tokens`, 0 where nobody knows. An answer may
    end where that is full (the model's own limit, which may be lower, is kept by the worker); one that ends before it
    was cut short by its provider, and differs."""
    short = found.shortened
    if short is None or context_tokens not in (0, short.ends_at):
        return found._replace(shortened=None)
    pieces = tuple(piece._replace(task=short.task) for piece in found.pieces)
    return found._replace(pieces=pieces, shortened=None if context_tokens else short)


def differences(piece: Piece, found: TaskOutput) -> tuple[Difference, ...]:
    """Where `found` is not what the receipt claims; empty when all of it agrees."""
    if found == piece.expected:
        return ()
    side = replay_of(piece.task.kind)
    try:
        rows = side.compared(piece, found.value) if side is not None else [_values(piece, found)]
    except FallowError:  # what was claimed is no value of its kind
        return (_values(piece, found),)
    blobs, mine = ({part.name: part.blob.hex() for part in one.parts} for one in (piece.expected, found))
    rows += [Difference(f"file {name}", blobs.get(name, ""), mine.get(name, "")) for name in sorted(blobs | mine)]
    return tuple(row for row in rows if row.expected != row.found)


def _values(piece: Piece, found: TaskOutput) -> Difference:
    return Difference("the value", piece.expected.value[:200].hex(), found.value[:200].hex())


def report(done: ReplayPlan) -> Report:
    """What doing the plan again means."""
    words = done.words
    if done.shortened is None:
        return words
    return words._replace(not_checked=(*words.not_checked[:-1], done.shortened.untold, words.not_checked[-1]))
