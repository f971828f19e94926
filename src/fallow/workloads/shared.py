"""The shared state of a training job, rebuilt by anyone from blobs: a start (the model itself, or a checkpoint) and the
signed list of which updates counted in which round.

An update that is malformed counts as absent. Since everyone sees the same bytes, everyone leaves the same ones out, and
a worker who publishes garbage stops nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fallow.errors import fail
from fallow.kinds.rounds import RoundManifest
from fallow.numerics import layout
from fallow.numerics.aggregate import MeanUpdate, SharedState
from fallow.numerics.compress import Floats, read_update
from fallow.numerics.layout import Array, Layout, TensorShape
from fallow.workloads.task import TaskRun


@dataclass(frozen=True)
class Outer:
    """The outer step's settings."""

    learning_rate: float
    momentum: float


@dataclass
class Replica:
    """A live copy of the shared state and how it came about: `origin` is the hash of the checkpoint it started from
    (b"start" for the model itself, b"" for a checkpoint without a name, which leads nowhere), `applied` the manifests
    since then."""

    state: SharedState
    origin: bytes
    outer: Outer
    applied: tuple[RoundManifest, ...] = ()

    def leads_to(self, origin: bytes, outer: Outer, manifests: tuple[RoundManifest, ...]) -> bool:
        """Whether this state comes before, or at, the one asked for."""
        same = self.origin == origin != b"" and self.outer == outer
        return same and manifests[: len(self.applied)] == self.applied

    def advance(self, work: TaskRun, manifests: tuple[RoundManifest, ...]) -> int:
        """Apply the manifests that are not applied yet. Returns how many updates were malformed and left out. Errors:
        E1707 when an update that a manifest names did not come with the task, or one is named twice in a round."""
        refused = 0
        for manifest in manifests[len(self.applied) :]:
            # Attack: one worker's update counted many times.
            if len(set(manifest.updates)) != len(manifest.updates):
                raise fail("E1707", f"The manifest of round {manifest.round} names an update twice.")
            mean = MeanUpdate(self.state.shapes())
            for blob in manifest.updates:
                update = read_update(work.input(f"update/{blob.hex()}"), mean.shapes)
                if update is None:
                    work.log(f"round {manifest.round}: {blob.hex()[:8]} is no update to this model; left out")
                    refused += 1
                else:
                    mean.add(update)
            if mean.count:
                self.state.outer_step(mean.mean(), self.outer.learning_rate, self.outer.momentum)
            self.applied = (*self.applied, manifest)
        return refused


def write_checkpoint(path: Path, state: SharedState) -> None:
    """Write the whole state; equal states give equal bytes."""
    tensors: dict[str, Array] = {f"theta/{name}": value for name, value in state.theta.items()}
    tensors |= {f"momentum/{name}": value for name, value in state.momentum.items()}
    layout.write(path, _layout(state.shapes()), tensors)


def read_checkpoint(path: Path, shapes: Mapping[str, TensorShape]) -> SharedState:
    """Errors: E1705 when the file is no checkpoint of tensors of these shapes, or not finite."""
    tensors = layout.read(path, _layout(shapes))
    if tensors is None or not all(bool(np.isfinite(value).all()) for value in tensors.values()):
        raise fail("E1705", "The checkpoint does not fit the model.")

    def part(kind: str) -> dict[str, Floats]:
        return {name: np.array(tensors[f"{kind}/{name}"], dtype=np.float32) for name in shapes}

    return SharedState(part("theta"), part("momentum"))


def _layout(shapes: Mapping[str, TensorShape]) -> Layout:
    tensors: dict[str, tuple[str, TensorShape]] = {}
    for name, shape in shapes.items():
        tensors[f"theta/{name}"] = tensors[f"momentum/{name}"] = ("F32", shape)
    return layout.layout(tensors, "checkpoint 1")
