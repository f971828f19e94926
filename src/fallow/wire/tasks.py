"""Tasks, their outputs, and how a model is trained, as they travel and as they are hashed. What the params and values
of a kind of work mean is said in its own room under `kinds/`.

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
    """A finite piece of work. `kind` names the typed workload (`kinds/registry.py`), `params` is that
    workload's own canonical message, `units` is what the finished task costs in metered units, fixed beforehand so
    that a provider cannot run the meter."""

    kind: Name
    params: Annotated[bytes, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    inputs: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]
    seed: U64
    units: U64
    timeout_s: U64
    ram_bytes: U64


class LaneSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What all tasks of one lane have in common, as its OpenLane said: with a task's params and seed it names the work
    completely. Its hash stands in every leaf of the lane's claims (`claims.setting_hash`)."""

    kind: Name
    inputs: Annotated[tuple[Part, ...], msgspec.Meta(max_length=64)] = ()
    context_tokens: U64 = 0
    exact: bool = False


class TaskOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a task gave: a small `value` (the workload's own canonical message) and the blobs it wrote, sorted by
    name. Its hash is what a provider claims and an auditor compares."""

    value: Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=4096)]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """How a model is trained; equal for all workers of a job. Floats are given as decimal text so that they mean the
    same number everywhere. `method` is "lora" or "full". `lora_targets` are module name endings. `ahead` is how many
    rounds a worker may run ahead of the log: 0 waits for every manifest before the next round, 1 goes on from its own
    update while the others' are still on their way (`rules/rounds.py`). `arithmetic` is "exact" (the same bits on every
    machine, and a commitment to every step) or "fp32" (the same bits on like machines only). `trace_bytes` is the most
    that the states of one exact round may take on a worker's disk; it decides how finely the round is cut
    (`kinds/train/trace.py`). `loss` is "assistant" (of chats what assistants say is learned, of a prompt and its
    completion the completion; texts whole) or "all"."""

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
    loss: Name = "assistant"

    @property
    def exact(self) -> bool:
        """Whether any machine can do any part of the work again and compare a hash."""
        return self.arithmetic == "exact"
