"""The blobs that claims consist of and checks start from: which are here, and who has the others."""

from __future__ import annotations

from fallow.kinds.chain import is_state
from fallow.rules.steward.events import KeepBlob
from fallow.rules.steward.specs import part_named
from fallow.rules.steward.state import Job, Run, Slot, Turn
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import Part

MAX_SOURCES = 16


def keep_parts(turn: Turn, job: Job, slot: Slot, run: Run) -> bool:
    """Whether the claim's outputs are in our own store; asks for what is not. An optimiser's state ("carry") and the
    states on the way stay with their provider until somebody needs them: they are large and seldom used by another."""
    assert run.output is not None, "a claim has an output"
    parts = [part for part in run.output.parts if part.name != "carry" and not is_state(part.name)]
    return keep(turn, job, parts, sources_of(slot, run.answer))


def keep(turn: Turn, job: Job, parts: list[Part], sources: tuple[NodeAddress, ...]) -> bool:
    """Whether the parts are in our own store; asks `sources` for what is not."""
    for part in parts:
        job.blobs.lent.pop(part.blob, None)  # it is more than a state that was checked
        if part.blob not in job.blobs.kept:
            job.blobs.kept[part.blob] = False
            turn.ask(KeepBlob(job.id, part, sources))
    return all(job.blobs.kept[part.blob] for part in parts)


def sources_of(slot: Slot, answer: bytes) -> tuple[NodeAddress, ...]:
    """Who says to hold the outputs of this answer."""
    found: dict[bytes, NodeAddress] = {}
    for run in slot.live():
        if run.answer == answer:
            for address in run.holders:
                found.setdefault(address.node, address)
    return tuple(found.values())[:MAX_SOURCES]


def learn_holders(job: Job, run: Run) -> None:
    """Remember who can serve what later tasks take as input."""
    if run.output is None:
        return
    for name in ("update", "checkpoint", "carry"):
        part = part_named(run.output, name)
        if part is not None:
            job.blobs.holders.setdefault(part.blob, run.holders[:2])
