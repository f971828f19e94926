"""What a train task is asked and what it answers: a round, the finish, and the check of a round."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.kinds.rounds import RoundManifest
from fallow.wire.documents import U64, Word
from fallow.wire.tasks import Decimal, Recipe


class TrainRound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="round"):
    """Run one round on shard `shard` of `shards`: rebuild the shared state from input "checkpoint" (none: the model
    itself) and `manifests`, take `recipe.inner_steps` steps, write the compressed difference as output "update" and
    the optimiser's state as "carry" (input "carry" continues one). Inputs: "model" (a tree), "data" (a tree), one
    "update/<hex>" per manifest entry, and "own" where the shard runs ahead of the manifests: its update of the round
    before, applied to this worker's copy alone. With `evaluate` the shared state's held-out loss before training is
    part of the value; with `checkpoint` that state is written as output "checkpoint"."""

    recipe: Recipe
    round: U64
    shard: U64
    shards: U64
    manifests: Annotated[tuple[RoundManifest, ...], msgspec.Meta(max_length=4096)]
    evaluate: bool
    checkpoint: bool


class TrainFinish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="finish"):
    """Apply the last manifests, evaluate, and write the result: output "adapter/<file>" in PEFT's format for LoRA,
    "model/<file>" in Hugging Face's for a full fine-tune."""

    recipe: Recipe
    manifests: Annotated[tuple[RoundManifest, ...], msgspec.Meta(max_length=4096)]


class TrainAudit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="audit"):
    """Do `links` of the commitment to `round` again (`kinds/train/trace.py` says what a link is), and the way into its
    first state and from its last one to its update. `units` and `every` are how the round was cut. Inputs: those of the
    round, and the states that the links start from, under the names that they have as the round's outputs."""

    round: TrainRound
    units: U64
    every: U64
    links: Annotated[tuple[U64, ...], msgspec.Meta(max_length=64)]


TrainParams = TrainRound | TrainFinish | TrainAudit


class TrainChecked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The value of a TrainAudit: what the auditor computed where the round's claim has hashes. `units` and `every` are
    how the round had to be cut; `state` is the shared state that it started from, `theta` and `moments` are the first
    state of the chain; `links` has for each link what is after it; `update` is the update that follows from the last
    state. Equal to what was claimed, or somebody is wrong."""

    units: U64
    every: U64
    state: Word
    theta: Word
    moments: Word
    links: Annotated[tuple[Annotated[tuple[Word, ...], msgspec.Meta(max_length=2)], ...], msgspec.Meta(max_length=64)]
    update: Word


class TrainValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The value of a train task: `state` is the hash of the shared state it started from (after all manifests),
    `loss` the held-out loss at that state as decimal text with six places, empty when not asked for."""

    state: Word
    loss: Decimal
    tokens: U64
