"""A training step on exact operators: micro-batches to gradients, gradients to the next state.

A step is a pure function of the state and the batch's set of sequences: how they are cut into micro-batches, in what
order, and on how many machines, changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.llama import ExactLlama, Observer
from fallow.numerics.exact.optimizers import ExactAdamW, ExactSchedule, clip
from fallow.numerics.exact.sequences import Sequences
from fallow.numerics.fingerprint import tensors_hash
from fallow.numerics.layout import Array
from fallow.units import Digest


@dataclass(frozen=True)
class Rules:
    """How gradients become steps: `schedule` of the rate, decoupled weight decay, the norm to clip to (0: none)."""

    schedule: ExactSchedule
    decay: float = 0.0
    clip_norm: float = 1.0


def gradients_of(model: ExactLlama, batch: Sequences | Tensor, observe: Observer | None = None) -> Gradients:
    """The gradients of one micro-batch: the unit of audit."""
    gradients = Gradients()
    model.add_gradients(batch, gradients, observe)
    return gradients


class Trainer:
    """A model, its optimiser and its rules. `step` counts from 0; set it to continue a run."""

    def __init__(self, model: ExactLlama, rules: Rules, optimizer: ExactAdamW | None = None) -> None:
        self.model, self.rules, self.step = model, rules, 0
        self.optimizer = optimizer or ExactAdamW(model.trainable)

    def train(self, micro_batches: Iterable[Sequences | Tensor]) -> float:
        """One step on a batch given in parts. -> its mean loss, nats, NaN when something was not finite."""
        gradients = Gradients()
        for batch in micro_batches:
            self.model.add_gradients(batch, gradients)
        return self.apply(gradients)

    def apply(self, gradients: Gradients) -> float:
        """One step on a batch's gradients, wherever they were summed. -> its mean loss."""
        means = gradients.means()
        clip(means, self.rules.clip_norm)
        self.optimizer.step(means, self.rules.schedule.rate(self.step), self.rules.decay)
        self.step += 1
        return gradients.mean_loss()

    def state_hash(self) -> Digest:
        """Of the trainable parameters and the optimiser."""
        return state_hash(self.model.trainable, self.optimizer)


def state_hash(parameters: Mapping[str, Tensor], optimizer: ExactAdamW | None = None) -> Digest:
    """One hash of a training state, equal exactly when all parameters and the optimiser's tensors are, bit for bit, but
    that every NaN counts as the same one. Source: docs/spec/exact-arithmetic.md, section 20."""
    named = {f"parameter/{name}": value for name, value in parameters.items()}
    if optimizer is not None:
        named |= {f"optimizer/{name}": value for name, value in optimizer.state().items()}
    arrays: dict[str, Array] = {name: value.detach().cpu().numpy() for name, value in named.items()}
    return tensors_hash(arrays)
