"""Training tasks: one round on one shard, or the finish. Stateless by blob, so that an audit is the same task run
elsewhere; what is kept in memory between tasks only saves time and never changes a result.

Source: DiLoCo (Douillard et al., 2023), algorithm 1, with int8 updates; the inner optimiser's state stays with its
shard.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fallow.errors import fail
from fallow.kinds.rounds import RoundManifest
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.kinds.train.trace import UNREADABLE, Cut, moments_name, theta_name
from fallow.numerics import layout
from fallow.numerics.aggregate import MeanUpdate, SharedState
from fallow.numerics.compress import Floats, pack, read_update, write_update
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.format import MAX_SEQUENCES
from fallow.numerics.exact.llama import ExactLlama
from fallow.numerics.exact.optimizers import ExactAdamW, ExactSchedule, clip
from fallow.numerics.fingerprint import state_hash
from fallow.wire import codec
from fallow.wire.tasks import Recipe
from fallow.workloads import exact, lora
from fallow.workloads.boundaries import keeps_apart, losses_of
from fallow.workloads.data import BatchPosition, Dataset, Rendering, batch, load_dataset
from fallow.workloads.model import LoadedModel, base_name, be_quiet, be_reproducible, load_model
from fallow.workloads.rendering import LOSSES
from fallow.workloads.shared import Outer, Replica, read_checkpoint, write_checkpoint
from fallow.workloads.task import TaskResult, TaskRun

MAX_BATCH, MAX_STEPS, MAX_SEQUENCE, MAX_SHARDS = 4096, 1_000_000, 1 << 20, 4096


@dataclass
class Trainee:
    """A model made ready for a recipe: `parameters` are the trainable ones, `initial` the state they started from (None
    once used up: a full fine-tune's is as large as the model and is not kept twice). `replica` is the shared state as
    of the last task (the parameters themselves may be anywhere); `dataset` the last data, under its key."""

    key: object
    model: LoadedModel
    parameters: dict[str, nn.Parameter]
    initial: SharedState | None
    replica: Replica | None = None
    exact: ExactLlama | None = None
    data_key: object = None
    dataset: Dataset | None = None

    def set(self, theta: dict[str, Floats]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(theta[name]))


_last: list[Trainee] = []
"""The one trainee that this process keeps between tasks."""


def run(work: TaskRun) -> TaskResult:
    """Run a TrainRound, TrainAudit or TrainFinish (see `wire/tasks.py` for inputs and outputs). Errors: E1701 to E1703
    for a model or data that is none; E1705 for a checkpoint or carry that does not fit; E1706 when the loss is not
    finite; E1707 for parameters out of bounds; E1709 for a model without an exact form; E1402 when cancelled."""
    params = codec.decode(TrainParams, work.task.params)
    training = params.round if isinstance(params, TrainAudit) else params
    recipe = training.recipe
    began = time.perf_counter()
    be_reproducible(work.threads)
    be_quiet()
    trainee = _trainee(work, recipe)
    check_recipe(recipe, trainee.model.context_tokens)
    dataset = _dataset(work, trainee, recipe)
    loaded = time.perf_counter()
    replica, refused = _replica(work, trainee, training.manifests, recipe)
    trainee.set(replica.state.theta)
    metrics = {
        "load_ms": int((loaded - began) * 1e3),
        "rebuild_ms": int((time.perf_counter() - loaded) * 1e3),
        "refused_updates": refused,
    }
    if isinstance(params, TrainFinish):
        return _finish(work, params, trainee, dataset, metrics)
    if not 0 <= training.shard < training.shards <= MAX_SHARDS:
        raise fail("E1707", f"Shard {training.shard} of {training.shards} cannot be.")
    if isinstance(params, TrainAudit):
        return _audit(work, params, trainee, dataset, metrics)
    return _round(work, params, trainee, dataset, metrics)


def _round(
    work: TaskRun, params: TrainRound, trainee: Trainee, dataset: Dataset, metrics: dict[str, int]
) -> TaskResult:
    recipe = params.recipe
    assert trainee.replica is not None
    state = trainee.replica.state
    start = state_hash(state)
    files: dict[str, Path] = {"update": work.outdir / "update", "carry": work.outdir / "carry"}
    if params.checkpoint:
        files["checkpoint"] = work.outdir / "checkpoint"
        write_checkpoint(files["checkpoint"], state)
    loss = _evaluate(work, trainee, dataset, recipe, metrics) if params.evaluate else ""
    theta = _own_start(work, trainee.replica)
    trainee.set(theta)
    if recipe.exact:
        chain = _chain(work, params, trainee, dataset)
        began = time.perf_counter()
        files |= exact.run_chain(work, chain, recipe)
    else:
        optimiser = ExactAdamW(trainee.parameters)
        plan = exact.moments_plan({name: tuple(p.shape) for name, p in trainee.parameters.items()})
        if "carry" in work.inputs:
            carried = exact.finite(work.input("carry"), plan)
            if carried is None or not exact.restored(optimiser, carried):
                raise fail("E1705", "The carried optimiser state does not fit the model.")
        began = time.perf_counter()
        _inner_steps(work, params, trainee, dataset, optimiser)
        layout.write(files["carry"], plan, {name: value.numpy() for name, value in optimiser.state().items()})
    metrics["step_ms"] = int((time.perf_counter() - began) * 1e3 / recipe.inner_steps)
    try:
        differences = {name: pack(theta[name] - p.detach().numpy()) for name, p in trainee.parameters.items()}
    except ValueError as error:
        raise fail("E1706", f"Training blew up: {error}.") from error
    write_update(files["update"], differences)
    metrics["update_bytes"] = files["update"].stat().st_size
    tokens = recipe.inner_steps * recipe.batch_sequences * recipe.sequence_tokens
    return TaskResult(codec.encode(TrainValue(start, loss, tokens)), files, metrics)


def _chain(work: TaskRun, params: TrainRound, trainee: Trainee, dataset: Dataset) -> exact.ExactRound:
    """The round in exact arithmetic, with the optimiser's carried state."""
    chain = exact.ExactRound(_exact_model(trainee), params, dataset, work.task.seed)
    if "carry" in work.inputs and not chain.load("carry", work.input("carry")):
        raise fail("E1705", "The carried optimiser state does not fit the model.")
    return chain


def _exact_model(trainee: Trainee) -> ExactLlama:
    if trainee.exact is None:
        trainee.exact = exactify(trainee.model.network, trainee.parameters)
    return trainee.exact


def _audit(
    work: TaskRun, params: TrainAudit, trainee: Trainee, dataset: Dataset, metrics: dict[str, int]
) -> TaskResult:
    """Do some links of a claimed round again, and its beginning and its end. The answer holds no verdict, only
    hashes."""
    steps, cut = params.round.recipe.inner_steps, Cut(params.units, params.every)
    if not cut.sound(steps, params.links):
        raise fail("E1707", "There are no such links in the round.")
    assert trainee.replica is not None
    theta = _own_start(work, trainee.replica)
    trainee.set(theta)
    chain = _chain(work, params.round, trainee, dataset)
    first = chain.identity(theta_name(0)), chain.identity(moments_name(0, steps))
    began = time.perf_counter()
    links: list[tuple[bytes, ...]] = []
    for number, index in enumerate(params.links, 1):
        links.append(exact.replay(work, chain, index, steps, cut))
        work.progress(number, len(params.links), f"link {index}")
    metrics["links_ms"] = int((time.perf_counter() - began) * 1e3)
    last = theta_name(steps)
    update = exact.update_identity(chain, theta) if chain.load(last, work.input(last)) else UNREADABLE
    right = chain.cut
    state = state_hash(trainee.replica.state)
    return TaskResult(
        codec.encode(TrainChecked(right.units, right.every, state, *first, tuple(links), update)), {}, metrics
    )


def _own_start(work: TaskRun, replica: Replica) -> dict[str, Floats]:
    """Where this worker's inner steps begin: at the shared state or, when it runs ahead of the log, where the shared
    state would be if everybody's update of the round before were its own (Kale et al., Eager Updates for Overlapped
    Communication and Computation in DiLoCo, 2025, section 3; there the stale updates of the others are mixed in)."""
    if "own" not in work.inputs:
        return replica.state.theta
    mean = MeanUpdate(replica.state.shapes())
    update = read_update(work.input("own"), mean.shapes)
    if update is None:
        raise fail("E1707", "The update that this worker is to go on from is no update to this model.")
    mean.add(update)
    return replica.state.guess(mean.mean(), replica.outer.learning_rate, replica.outer.momentum)


def _inner_steps(work: TaskRun, params: TrainRound, trainee: Trainee, dataset: Dataset, optimiser: ExactAdamW) -> None:
    recipe, steps = params.recipe, params.recipe.inner_steps
    schedule = ExactSchedule(float(recipe.learning_rate), recipe.warmup_steps, recipe.rounds * steps)
    limit, decay = float(recipe.clip_norm), float(recipe.weight_decay)
    for parameter in trainee.parameters.values():
        parameter.requires_grad_(True)
    try:
        for step in range(steps):
            at = params.round * steps + step
            place = BatchPosition(work.task.seed, params.shard, params.shards, at)
            loss = losses_of(trainee.model.network, batch(dataset, place, recipe.batch_sequences).sequences(), "mean")
            loss.backward()
            gradients = {name: p.grad for name, p in trainee.parameters.items() if p.grad is not None}
            clip(gradients, limit)
            optimiser.step(gradients, schedule.rate(at), decay)
            trainee.model.network.zero_grad()
            value = float(loss.detach())
            if not np.isfinite(value):
                raise fail("E1706", f"The loss is {value} at step {step + 1} of round {params.round}.")
            work.progress(step + 1, steps, f"loss {value:.4f}")
    finally:
        for parameter in trainee.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def _finish(
    work: TaskRun, params: TrainFinish, trainee: Trainee, dataset: Dataset, metrics: dict[str, int]
) -> TaskResult:
    recipe, model = params.recipe, trainee.model
    assert trainee.replica is not None
    state = trainee.replica.state
    loss = _evaluate(work, trainee, dataset, recipe, metrics)
    if recipe.method == "lora":
        folder = work.outdir / "adapter"
        settings = {"rank": recipe.lora_rank, "alpha": recipe.lora_alpha, "targets": recipe.lora_targets}
        lora.write_adapter(folder, state.theta, base_name(model.facts, work.content("model")), settings)
    else:
        folder = work.outdir / "model"
        model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    files = {f"{folder.name}/{file.name}": file for file in sorted(folder.iterdir()) if file.is_file()}
    return TaskResult(codec.encode(TrainValue(state_hash(state), loss, 0)), files, metrics)


def _evaluate(work: TaskRun, trainee: Trainee, dataset: Dataset, recipe: Recipe, metrics: dict[str, int]) -> str:
    """Held-out loss per predicted token at the parameters as they are, as decimal text with six places."""
    began, count = time.perf_counter(), len(dataset.holdout)
    total: float = 0  # in exact arithmetic a whole number
    with torch.no_grad():
        for start in range(0, count, recipe.batch_sequences):
            some = dataset.holdout[start : start + recipe.batch_sequences]
            if recipe.exact:
                total += exact.total_of(_exact_model(trainee), some.sequences())
            else:
                total += float(losses_of(trainee.model.network, some.sequences(), "sum"))
            work.progress(0, recipe.inner_steps, f"held-out {min(start + len(some), count)}/{count}")
    metrics["evaluate_ms"] = int((time.perf_counter() - began) * 1e3)
    tokens = dataset.holdout.counted
    return exact.mean_text(int(total), tokens) if recipe.exact else f"{total / tokens:.6f}"


def _trainee(work: TaskRun, recipe: Recipe) -> Trainee:
    """The model, ready for the recipe: the one of the last task when it is the same."""
    path = work.input("model")
    key = (work.content("model") or object(), recipe.method, recipe.lora_rank, recipe.lora_alpha, recipe.lora_targets)
    if _last and _last[0].key == key:
        return _last[0]
    _last.clear()
    if recipe.method not in ("lora", "full"):
        raise fail("E1707", f"No training method is called {recipe.method!r}.")
    if recipe.arithmetic not in ("exact", "fp32"):
        raise fail("E1707", f"No arithmetic is called {recipe.arithmetic!r}.")
    model = load_model(path)
    if recipe.method == "lora":
        parameters = lora.inject(model.network, recipe.lora_targets, recipe.lora_rank, recipe.lora_alpha)
    else:
        parameters = dict(model.network.named_parameters())
    start = SharedState.start({name: p.detach().numpy() for name, p in parameters.items()})
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    _last.append(Trainee(key, model, parameters, start))
    return _last[0]


def _dataset(work: TaskRun, trainee: Trainee, recipe: Recipe) -> Dataset:
    key = (work.content("data") or object(), recipe.sequence_tokens, recipe.holdout_sequences, recipe.loss)
    if trainee.dataset is None or trainee.data_key != key:
        network = trainee.model.network
        rendering = Rendering(recipe.sequence_tokens, recipe.loss, apart=not (recipe.exact or keeps_apart(network)))
        trainee.dataset = load_dataset(work.input("data"), trainee.model.tokenizer, rendering, recipe.holdout_sequences)
        trainee.data_key = key
    return trainee.dataset


def _replica(
    work: TaskRun, trainee: Trainee, manifests: tuple[RoundManifest, ...], recipe: Recipe
) -> tuple[Replica, int]:
    """The shared state after `manifests`, from the last task's where that leads there, else from the start."""
    outer = Outer(float(recipe.outer_learning_rate), float(recipe.outer_momentum))
    origin = work.content("checkpoint") if "checkpoint" in work.inputs else b"start"
    replica, trainee.replica = trainee.replica, None
    if replica is None or not replica.leads_to(origin, outer, manifests):
        replica = Replica(_start(work, trainee, recipe), origin, outer)
    refused = replica.advance(work, manifests)
    trainee.replica = replica
    return replica, refused


def _start(work: TaskRun, trainee: Trainee, recipe: Recipe) -> SharedState:
    if "checkpoint" in work.inputs:
        return read_checkpoint(work.input("checkpoint"), {n: tuple(p.shape) for n, p in trainee.parameters.items()})
    if trainee.initial is None:
        network = load_model(work.input("model")).network
        return SharedState.start({name: p.numpy() for name, p in network.named_parameters()})
    if recipe.method == "lora":
        return SharedState.start(trainee.initial.theta)
    start, trainee.initial = trainee.initial, None
    return start


def check_recipe(recipe: Recipe, context_tokens: int) -> None:
    """Errors: E1707 naming the first setting that is out of bounds. Each bound keeps a peer from asking for work
    without end or memory without end."""
    bounds = {
        "sequence_tokens": (2, min(context_tokens, MAX_SEQUENCE)),
        "batch_sequences": (1, MAX_SEQUENCES if recipe.exact else MAX_BATCH),
        "inner_steps": (1, MAX_STEPS),
        "rounds": (1, MAX_STEPS),
    }
    for name, (low, high) in bounds.items():
        if not low <= getattr(recipe, name) <= high:
            raise fail("E1707", f"{name} is {getattr(recipe, name)}; it must lie between {low} and {high}.")
    if recipe.loss not in LOSSES:
        raise fail("E1707", f"No loss is called {recipe.loss!r}.")
    for name in ("learning_rate", "weight_decay", "clip_norm", "outer_learning_rate", "outer_momentum"):
        text = getattr(recipe, name)
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1000:
            raise fail("E1707", f"{name} is {text!r}; it must be a number between 0 and 1000.")
