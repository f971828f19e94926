"""Committed rounds in the simulator: the chain of states of `kinds/train/trace.py`, with hashes in the place of
tensors. A link follows from what it starts from and from its place in the job, as the real one does, so auditors of the
simulator find what real ones would."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from blake3 import blake3

from fallow.kinds.chain import is_state
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainRound, TrainValue
from fallow.kinds.train.trace import (
    Cut,
    Link,
    cut_for,
    link_at,
    moments_name,
    theta_name,
)
from fallow.units import BlobId
from fallow.wire import codec
from fallow.wire.blob_id import blob_id, chunk_hash
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

PARAMETERS = 1_000
STATE_BYTES = 4_000
_FILES: dict[bytes, bytes] = {}
"""What is in the blobs that were made, without the zeros at the end."""


def digest(*parts: object) -> bytes:
    """32 bytes that follow from what is said and from nothing else."""
    return blake3(repr(parts).encode()).digest()


@lru_cache(maxsize=20_000)
def _id(content: bytes, size_bytes: int) -> BlobId:
    data = content + bytes(size_bytes - len(content))
    return blob_id((chunk_hash(data),), size_bytes)


def made(size_bytes: int, *parts: object) -> BlobId:
    """The id of a file of that size, 32 bytes or more, that follows from what is said."""
    content = digest(*parts)
    found = _id(content, size_bytes)
    if len(_FILES) > 100_000:
        _FILES.clear()
    _FILES[found] = content
    return found


def content(part: Part) -> bytes:
    """The bytes of a file that was made in this process. KeyError for any other."""
    found = _FILES[part.blob]
    return found + bytes(part.size_bytes - len(found))


def _state(*parts: object) -> bytes:
    return made(STATE_BYTES, *parts)


def committed(
    spec: TaskSpec, params: TrainRound, skipped: Collection[int] = (), flipped: Collection[int] = ()
) -> TaskOutput:
    """The output of a round. An honest one skips no steps; a cheat's skipped steps change no state, and its flipped
    links give something that they should not."""
    recipe = params.recipe
    cut, steps, root = cut_for(recipe, PARAMETERS), recipe.inner_steps, _root(spec, params)
    found = dict(zip((theta_name(0), moments_name(0, steps)), _start(root), strict=True))
    for index in range(cut.links(steps)):
        link = link_at(index, steps, cut)
        gives = _after(root, link, index, found)
        if skipped and link.first in skipped:
            idle = (found[theta_name(link.first)], found[moments_name(link.first, steps)])
            gives = idle if len(link.gives) > 1 else (_state("no gradient", root, index),)
        elif index in flipped:
            gives = tuple(_state("flipped", blob) for blob in gives)
        found |= dict(zip(link.gives, gives, strict=True))
    found["update"] = _update(root, found[theta_name(steps)])
    if params.checkpoint:
        found["checkpoint"] = _state("checkpoint", params.round, params.manifests)
    parts = tuple(Part(name, blob, STATE_BYTES) for name, blob in sorted(found.items()))
    loss = f"{3 - params.round / 10:.6f}" if params.evaluate else ""
    return TaskOutput(codec.encode(TrainValue(state_of(params), loss, spec.units)), parts)


def audited(spec: TaskSpec, params: TrainAudit) -> TaskOutput:
    """What an honest auditor answers."""
    recipe = params.round.recipe
    steps, root = recipe.inner_steps, _root(spec, params.round)
    given = {part.name: part.blob for part in spec.inputs}
    cut = Cut(params.units, params.every)
    links = tuple(_after(root, link_at(index, steps, cut), index, given) for index in params.links)
    right = cut_for(recipe, PARAMETERS)
    update = _update(root, given[theta_name(steps)])
    checked = TrainChecked(right.units, right.every, state_of(params.round), *_start(root), links, update)
    return TaskOutput(codec.encode(checked), ())


def state_of(params: TrainRound) -> bytes:
    """The hash of the shared state that a round starts from."""
    return digest("state", params.manifests)


def _root(spec: TaskSpec, params: TrainRound) -> bytes:
    """The task of the round, whoever was given it for whatever purpose."""
    inputs = tuple(part for part in spec.inputs if not is_state(part.name))
    return digest("round", params, inputs, spec.seed)


def _start(root: bytes) -> tuple[bytes, bytes]:
    return _state("theta", root), _state("moments", root)


def _after(root: bytes, link: Link, index: int, found: dict[str, bytes]) -> tuple[bytes, ...]:
    before = [found[name] for name in link.needs]
    return tuple(_state("link", root, index, before, number) for number in range(len(link.gives)))


def _update(root: bytes, last: bytes) -> bytes:
    return _state("update", root, last)
