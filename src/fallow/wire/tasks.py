"""Tasks, outputs and the inputs of the typed workloads, as they travel and as they are hashed.

A task names its work completely: kind, parameters, input blobs, seed. Its id is the BLAKE3 hash of its canonical
encoding, so that the same work has the same id wherever it runs and a re-execution can be compared with it. What
varies between honest runs (time, memory, host) is reported as metrics and is never part of an output.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64, Word

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Decimal = Annotated[str, msgspec.Meta(max_length=40)]
"""A number as decimal text."""
DEFAULT_TRACE_BYTES = 2 << 30
"""What a recipe that does not say is cut for: so were all rounds before recipes could say."""
MAX_PARAMS_BYTES = 1 << 20
MAX_VALUE_BYTES = 1 << 20


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A named blob: an input that the worker finds as a file, or an output that it wrote."""

    name: Name
    blob: Word
    size_bytes: U64


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A finite piece of work. `kind` names the typed workload ("echo", "train", "generate"), `params` is that
    workload's own canonical message, `units` is what the finished task costs in metered units, fixed beforehand so
    that a provider cannot run the meter."""

    kind: Name
    params: Annotated[bytes, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    inputs: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]
    seed: U64
    units: U64
    timeout_s: U64
    ram_bytes: U64


class TaskOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a task gave: a small `value` (the workload's own canonical message) and the blobs it wrote, sorted by
    name. Its hash is what a provider claims and an auditor compares."""

    value: Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]


class RoundManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Which updates count in training round `round`: blobs of int8 pseudo-gradients, ordered by shard. Everyone who
    applies the same manifests to the same start holds the same state."""

    round: U64
    updates: Annotated[tuple[Word, ...], msgspec.Meta(max_length=4096)]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """How a model is trained; equal for all workers of a job. Floats are given as decimal text so that they mean the
    same number everywhere. `method` is "lora" or "full". `lora_targets` are module name endings. `ahead` is how many
    rounds a worker may run ahead of the log: 0 waits for every manifest before the next round, 1 goes on from its own
    update while the others' are still on their way (`rules/rounds.py`). `arithmetic` is "exact" (the same bits on every
    machine, and a commitment to every step) or "fp32" (the same bits on like machines only). `trace_bytes` is the most
    that the states of one exact round may take on a worker's disk; it decides how finely the round is cut
    (`wire/traces.py`)."""

    method: Name
    lora_rank: U64 = 8
    lora_alpha: U64 = 16
    lora_targets: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ("q_proj", "v_proj")
    sequence_tokens: U64 = 128
    batch_sequences: U64 = 2
    inner_steps: U64 = 8
    rounds: U64 = 3
    learning_rate: Decimal = "0.0005"
    weight_decay: Decimal = "0.0"
    clip_norm: Decimal = "1.0"
    warmup_steps: U64 = 2
    outer_learning_rate: Decimal = "0.7"
    outer_momentum: Decimal = "0.5"
    holdout_sequences: U64 = 16
    ahead: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    arithmetic: Name = "fp32"
    trace_bytes: U64 = DEFAULT_TRACE_BYTES

    @property
    def exact(self) -> bool:
        """Whether any machine can do any part of the work again and compare a hash."""
        return self.arithmetic == "exact"


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
    """Do `links` of the commitment to `round` again (`wire/traces.py` says what a link is), and the way into its first
    state and from its last one to its update. `units` and `every` are how the round was cut. Inputs: those of the
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


class ChatTurn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    role: Name
    content: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]


class Generate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One completion. Either `turns` (chat, through the model's own template) or `prompt` is set. Sampling is seeded
    by the task's seed and each token's position; temperature "0" is greedy. `resume` holds the text already
    sent by a provider that went away: it is taken as given and continued."""

    turns: Annotated[tuple[ChatTurn, ...], msgspec.Meta(max_length=1024)]
    prompt: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    max_tokens: U64
    temperature: Decimal = "0"
    top_p: Decimal = "1"
    stop: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=1000)], ...], msgspec.Meta(max_length=16)] = ()
    resume: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)] = ""


CANCELLED = "cancelled"


class GenerateValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The value of a generate task. `finish` is "stop", "length", or CANCELLED for one that was stopped because nobody
    wanted more: it holds what had been made by then. Token counts follow the model's tokenizer, but for a cancelled
    answer: its `completion_tokens` are the pieces of text that were told, of at least one token each, so that whoever
    heard them can count them. `logits` commits to what the tokens were chosen from: a hash over the logits before each
    token that was made here, in order (docs/spec/exact-arithmetic.md, section 21), or b"" from engines whose bits
    differ between machines."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    finish: Name
    prompt_tokens: U64
    completion_tokens: U64
    logits: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
