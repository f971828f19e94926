"""What a kind answers whose jobs go in rounds (`rules/steward/shapes/rounds.py`): shards work side by side, and each
round starts from the updates of all of them.

Parts go by these names. A round writes "update", and may write "carry", which its shard's next round gets as an input,
and "checkpoint" when it is told to. It gets "checkpoint", one "update/<hex>" per entry of its manifests, and "own": its
shard's update of the round before, where it runs ahead of the manifests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

import msgspec

from fallow.wire.documents import U64, Word
from fallow.wire.local import TrainJob
from fallow.wire.tasks import Part, TaskOutput


class RoundManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Which updates count in round `round`: blobs ordered by shard. Everyone who applies the same manifests to the same
    start holds the same state."""

    round: U64
    updates: Annotated[tuple[Word, ...], msgspec.Meta(max_length=4096)]


class RoundPart(NamedTuple):
    """A shard's part of a round. With `evaluate` it says how good the state is that it starts from, with `checkpoint`
    it leaves that state as a blob."""

    round: int
    shard: int
    shards: int
    manifests: tuple[RoundManifest, ...]
    evaluate: bool
    checkpoint: bool


class StateReport(NamedTuple):
    """What an output says of the state that it started from: its hash, and the loss as decimal text, or ""."""

    state: bytes
    loss: str


class Rounds(ABC):
    """The rounds of a kind."""

    @abstractmethod
    def count(self, work: TrainJob) -> int:
        """How many rounds the job has."""

    @abstractmethod
    def ahead(self, work: TrainJob) -> int:
        """How many rounds a shard may run ahead of the log: 0 or 1."""

    @abstractmethod
    def inputs(self, work: TrainJob) -> tuple[Part, ...]:
        """What every task of the job gets."""

    @abstractmethod
    def round(self, work: TrainJob, place: RoundPart) -> bytes:
        """The parameters of a shard's part of a round."""

    @abstractmethod
    def finish(self, work: TrainJob, manifests: tuple[RoundManifest, ...]) -> bytes:
        """The parameters of the task that makes the result after the last round."""

    @abstractmethod
    def round_units(self, work: TrainJob, *, evaluate: bool) -> int:
        """What a shard's part of a round is metered at."""

    @abstractmethod
    def finish_units(self, work: TrainJob) -> int:
        """What the finishing task is metered at."""

    @abstractmethod
    def told(self, output: TaskOutput) -> StateReport | None:
        """What an output says; None when a provider wrote something else there."""
