"""Training rounds in exact arithmetic: a chain of links between states that are written down and named by their hashes
(`kinds/train/trace.py`), and the same links done again by whoever checks them.

The round and its audit run the same code: `ExactRound.take` does one link from the state that is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fallow.errors import fail
from fallow.kinds.train.tasks import TrainRound
from fallow.kinds.train.trace import UNREADABLE, Cut, Link, cut_for, link_at, moments_name, theta_name, unit_rows
from fallow.numerics import layout
from fallow.numerics.compress import Floats, pack, update_layout
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.llama import ExactLlama
from fallow.numerics.exact.losses import LOSS_BITS, total_loss
from fallow.numerics.exact.optimizers import ExactAdamW, ExactSchedule
from fallow.numerics.exact.sequences import Sequences
from fallow.numerics.exact.training import Rules, Trainer
from fallow.numerics.layout import Array, Layout, TensorShape
from fallow.wire.tasks import Recipe
from fallow.workloads.data import BatchPosition, Dataset, batch
from fallow.workloads.state_files import StateFiles, identity
from fallow.workloads.task import TaskRun

COUNTS = ("loss", "tokens", "poisoned")


class ExactRound:
    """A model in the midst of a round: its parameters, its optimiser, and the gradients summed so far."""

    def __init__(self, model: ExactLlama, params: TrainRound, dataset: Dataset, seed: int) -> None:
        recipe = params.recipe
        schedule = ExactSchedule(float(recipe.learning_rate), recipe.warmup_steps, recipe.rounds * recipe.inner_steps)
        rules = Rules(schedule, float(recipe.weight_decay), float(recipe.clip_norm))
        self._params, self._dataset, self._seed = params, dataset, seed
        self.model, self.trainer = model, Trainer(model, rules, ExactAdamW(model.trainable))
        self.shapes: dict[str, TensorShape] = {name: tuple(p.shape) for name, p in model.trainable.items()}
        self.sums = Gradients()
        self.loss = 0.0

    @property
    def cut(self) -> Cut:
        """How the round must be cut."""
        return cut_for(self._params.recipe, sum(p.numel() for p in self.model.trainable.values()))

    def take(self, link: Link, cut: Cut) -> None:
        """Do a link from the state and sum that are loaded."""
        for step in range(link.first, link.last):
            for unit in range(link.unit, link.until):
                self.model.add_gradients(self._rows(step, cut, unit), self.sums)
            if link.until == cut.units:
                self.close(step)

    def close(self, step: int) -> None:
        """The optimiser's step, with the sum of the step's gradients."""
        self.trainer.step = self._params.round * self._params.recipe.inner_steps + step
        self.loss = self.trainer.apply(self.sums)
        self.sums = Gradients()

    def _rows(self, step: int, cut: Cut, unit: int) -> Sequences:
        params, recipe = self._params, self._params.recipe
        place = BatchPosition(self._seed, params.shard, params.shards, params.round * recipe.inner_steps + step)
        rows = unit_rows(recipe.batch_sequences, cut.units, unit)
        return batch(self._dataset, place, recipe.batch_sequences)[rows.start : rows.stop].sequences()

    # states as files --------------------------------------------------------------------------------------------------

    def plan(self, name: str) -> Layout:
        """The file of a state, by the name of its part."""
        if "/theta/" in name:
            return layout.layout({n: ("F32", shape) for n, shape in self.shapes.items()}, "theta 1")
        if "/sum/" in name:
            counts: dict[str, tuple[str, TensorShape]] = dict.fromkeys(COUNTS, ("I64", (1,)))
            return layout.layout(counts | {f"sum/{n}": ("I64", s) for n, s in self.shapes.items()}, "gradients 1")
        return moments_plan(self.shapes)

    def tensors(self, name: str) -> dict[str, Array]:
        """The present state as the part `name` holds it."""
        if "/theta/" in name:
            return {n: p.detach().numpy() for n, p in self.model.trainable.items()}
        if "/sum/" in name:
            sums = self.sums
            counts = (sums.loss, sums.tokens, int(sums.poisoned))
            found: dict[str, Array] = {n: np.asarray([c], np.int64) for n, c in zip(COUNTS, counts, strict=True)}
            return found | {f"sum/{n}": sums.total(n, p).numpy() for n, p in self.model.trainable.items()}
        return {n: value.numpy() for n, value in self.trainer.optimizer.state().items()}

    def load(self, name: str, path: Path) -> bool:
        """Take over the state in a file; False when it is none, or has a number that is not finite."""
        tensors = finite(path, self.plan(name))
        if tensors is None:
            return False
        if "/theta/" in name:
            self.set(tensors)
        elif "/sum/" in name:
            loss, tokens, poisoned = (int(tensors.pop(count)[0]) for count in COUNTS)
            totals = {n.removeprefix("sum/"): value for n, value in tensors.items()}
            self.sums = Gradients(totals, loss, tokens, bool(poisoned))
        else:
            return restored(self.trainer.optimizer, tensors)
        return True

    @torch.no_grad()
    def set(self, theta: Mapping[str, torch.Tensor]) -> None:
        """Take over parameters."""
        for name, parameter in self.model.trainable.items():
            parameter.copy_(theta[name])

    def identity(self, name: str) -> bytes:
        """The id that the present state's file would have."""
        tensors = self.tensors(name)
        if not all(bool(np.isfinite(value).all()) for value in tensors.values()):
            return UNREADABLE
        return identity(self.plan(name), tensors, torch.get_num_threads())


def moments_plan(shapes: Mapping[str, TensorShape]) -> Layout:
    """The file of an optimiser's state for parameters of these shapes."""
    tensors: dict[str, tuple[str, TensorShape]] = {"step": ("I64", (1,))}
    for name, shape in shapes.items():
        tensors[f"mean/{name}"] = tensors[f"square/{name}"] = ("F32", shape)
    return layout.layout(tensors, "adamw 1")


def finite(path: Path, plan: Layout) -> dict[str, torch.Tensor] | None:
    """The tensors of a file; None when it is not laid out as `plan`, or has a number that is not finite."""
    found = layout.read(path, plan)
    if found is None or not all(bool(np.isfinite(value).all()) for value in found.values()):
        return None
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


def restored(optimizer: ExactAdamW, state: Mapping[str, torch.Tensor]) -> bool:
    """Continue from `state`; False when it is none of this optimiser's."""
    try:
        optimizer.restore(state)
    except ValueError:
        return False
    return True


def run_chain(work: TaskRun, chain: ExactRound, recipe: Recipe) -> dict[str, Path]:
    """Take all links of the round from the state that is loaded, writing every state on the way. -> the parts by name.
    Errors: E1706 when the loss is not finite; E1402 when cancelled; OSError when the disk fails."""
    cut, steps = chain.cut, recipe.inner_steps
    files: dict[str, Path] = {}
    with StateFiles() as states:

        def keep(name: str) -> None:
            files[name] = work.outdir / name
            states.write(files[name], chain.plan(name), chain.tensors(name))

        keep(theta_name(0))
        keep(moments_name(0, steps))
        for index in range(cut.links(steps)):
            link = link_at(index, steps, cut)
            chain.take(link, cut)
            if not np.isfinite(chain.loss):
                raise fail("E1706", f"The loss is {chain.loss} at step {link.last}.")
            for name in link.gives:
                keep(name)
            work.progress(link.last if link.until == cut.units else link.first, steps, f"loss {chain.loss:.4f}")
    return files


def replay(work: TaskRun, chain: ExactRound, index: int, steps: int, cut: Cut) -> tuple[bytes, ...]:
    """Do one link of somebody's claim again from the states that it claimed. -> the ids of what it gives, UNREADABLE
    where what it starts from is no state of this model."""
    link = link_at(index, steps, cut)
    chain.sums = Gradients()
    if not all(chain.load(name, work.input(name)) for name in link.needs):
        return (UNREADABLE,) * len(link.gives)
    chain.take(link, cut)
    return tuple(chain.identity(name) for name in link.gives)


def update_identity(chain: ExactRound, before: Mapping[str, Floats]) -> bytes:
    """The id of the update from `before` to the present parameters, UNREADABLE where there can be none."""
    try:
        packed = {n: pack(before[n] - p.detach().numpy()) for n, p in chain.model.trainable.items()}
    except ValueError:
        return UNREADABLE
    tensors: dict[str, Array] = {n: one.codes for n, one in packed.items()}
    tensors |= {f"{n}#scale": one.scales for n, one in packed.items()}
    return identity(update_layout(chain.shapes), tensors, torch.get_num_threads())


def total_of(model: ExactLlama, batch: Sequences) -> int:
    """The sum of the token losses of sequences, in counts of 2^-32: sums of parts are the sum of the whole."""
    return int(total_loss(model.losses(batch)))


def mean_text(total: int, count: int) -> str:
    """A mean loss as decimal text with six places."""
    return f"{total / (count << LOSS_BITS):.6f}"
