from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.workloads.tiny import RECIPE, TEXT, hashes_of, make_model, make_work, manifest_of, value_of
from transformers import AutoModelForCausalLM

from fallow.errors import FallowError
from fallow.kinds.rounds import RoundManifest
from fallow.kinds.train.tasks import TrainFinish, TrainRound
from fallow.wire.tasks import Recipe
from fallow.workloads import train
from fallow.workloads.model import load_model
from fallow.workloads.task import TaskResult, TaskRun

Inputs = dict[str, Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("base")
    (folder / "data.txt").write_text(TEXT)
    return {"model": make_model(folder / "model"), "data": folder / "data.txt"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    train._last.clear()
    yield
    train._last.clear()


def full(recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(recipe, method="full", learning_rate="0.003")


def ahead(recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(recipe, ahead=1)


class Job:
    """A job of two shards, run by hand: what the steward would do."""

    def __init__(self, base: dict[str, Path], folder: Path, recipe: Recipe, rounds: int) -> None:
        self.base, self.folder, self.recipe = base, folder, recipe
        self.manifests: tuple[RoundManifest, ...] = ()
        self.updates: dict[str, Path] = {}
        self.outcomes: list[list[TaskResult]] = []
        for number in range(rounds):
            outcomes = [train.run(self.round(number, shard)) for shard in range(2)]
            manifest, files = manifest_of(number, outcomes)
            self.manifests, self.updates = (*self.manifests, manifest), self.updates | files
            self.outcomes.append(outcomes)

    def round(self, number: int, shard: int, name: str = "first", **change: object) -> TaskRun:
        seen = self.manifests[: max(0, number - self.recipe.ahead)]
        params = TrainRound(self.recipe, number, shard, 2, seen, evaluate=True, checkpoint=True)
        named = {f"update/{blob.hex()}" for manifest in seen for blob in manifest.updates}
        inputs = self.base | {name: path for name, path in self.updates.items() if name in named}
        if number:
            inputs |= {"carry": self.outcomes[number - 1][shard].files["carry"]}
        if number and self.recipe.ahead:
            inputs |= {"own": self.outcomes[number - 1][shard].files["update"]}
        params = msgspec.structs.replace(params, **change)
        return make_work(params, inputs, self.folder / f"{name}-{number}-{shard}")

    def finish(self) -> TaskResult:
        inputs = self.base | self.updates
        return train.run(make_work(TrainFinish(self.recipe, self.manifests), inputs, self.folder / "finish"))


@pytest.mark.parametrize("recipe", [RECIPE, full(RECIPE)], ids=["lora", "full"])
def test_all_shards_agree_on_the_state_and_the_loss_falls(
    base: dict[str, Path], tmp_path: Path, recipe: Recipe
) -> None:
    job = Job(base, tmp_path, recipe, 3)
    states = [{value_of(outcome).state for outcome in outcomes} for outcomes in job.outcomes]
    assert [len(state) for state in states] == [1, 1, 1]
    assert len(set.union(*states)) == 3
    losses = [float(value_of(outcomes[0]).loss) for outcomes in job.outcomes] + [float(value_of(job.finish()).loss)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1
    assert value_of(job.outcomes[0][0]).tokens == 3 * 2 * 32


def test_ahead_of_the_log_all_agree_on_what_is_shared_and_the_loss_falls(base: Inputs, tmp_path: Path) -> None:
    job = Job(base, tmp_path, ahead(full(RECIPE)), 4)
    shared = [{(value_of(outcome).state, value_of(outcome).loss) for outcome in outcomes} for outcomes in job.outcomes]
    assert [len(found) for found in shared] == [1, 1, 1, 1]
    assert shared[0] == shared[1]  # nobody's update has come round yet
    assert len(set.union(*shared)) == 3
    losses = [float(value_of(outcomes[0]).loss) for outcomes in job.outcomes[1:]] + [float(value_of(job.finish()).loss)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_a_lone_worker_ahead_of_the_log_loses_nothing(base: Inputs, tmp_path: Path) -> None:
    """With one shard the guess of the shared state is right: the same bits as when it waits for the manifest."""
    plain, _ = alone(base, tmp_path / "plain", full(RECIPE)), train._last.clear()
    assert alone(base, tmp_path / "ahead", ahead(full(RECIPE))) == plain


def alone(base: Inputs, folder: Path, recipe: Recipe) -> list[bytes]:
    """The hashes of the updates of three rounds of one shard."""
    manifests, inputs, found, before = list[RoundManifest](), base, list[bytes](), Inputs()
    for number in range(3):
        seen = tuple(manifests[: max(0, number - recipe.ahead)])
        own = {"own": before["update"]} if recipe.ahead and number else {}
        carry = {"carry": before["carry"]} if number else {}
        params = TrainRound(recipe, number, 0, 1, seen, evaluate=False, checkpoint=False)
        outcome = train.run(make_work(params, inputs | own | carry, folder / f"{number}"))
        manifest, files = manifest_of(number, [outcome])
        manifests, inputs, before = [*manifests, manifest], inputs | files, outcome.files
        found.append(hashes_of(outcome)["update"])
    return found


def test_an_own_update_that_is_none_fails_the_task(base: Inputs, tmp_path: Path) -> None:
    job = Job(base, tmp_path, ahead(RECIPE), 1)
    work = job.round(1, 0, "bad")
    work.inputs["own"] = base["data"]
    assert code_of(work) == "E1707"


def test_exact_steps_are_no_larger_than_their_sums_allow() -> None:
    recipe = msgspec.structs.replace(RECIPE, arithmetic="exact", batch_sequences=341)
    train.check_recipe(recipe, 1 << 20)
    with pytest.raises(FallowError, match="between 1 and 341"):
        train.check_recipe(msgspec.structs.replace(recipe, batch_sequences=342), 1 << 20)
    train.check_recipe(msgspec.structs.replace(recipe, batch_sequences=342, arithmetic="fp32"), 1 << 20)


@pytest.mark.parametrize("recipe", [RECIPE, ahead(RECIPE)], ids=["in step", "ahead"])
def test_another_process_gives_the_same_bits(base: dict[str, Path], tmp_path: Path, recipe: Recipe) -> None:
    """What audits rest on: a round run again elsewhere, without this process's memory, has equal outputs."""
    job = Job(base, tmp_path, recipe, 2)
    script = (
        "import sys; from pathlib import Path; import msgspec\n"
        "from fallow.wire.tasks import TaskSpec; from fallow.workloads import train\n"
        "from fallow.workloads.task import TaskRun\n"
        "task = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=TaskSpec)\n"
        "inputs = {k: Path(v) for k, v in msgspec.json.decode(sys.argv[2]).items()}\n"
        "out = train.run(TaskRun(task, inputs, Path(sys.argv[3]), 1, lambda *_: None, print))\n"
        "sys.stdout.buffer.write(out.value)\n"
    )
    work = job.round(1, 1, "again")
    (tmp_path / "task").write_bytes(msgspec.msgpack.encode(work.task))
    inputs = msgspec.json.encode({name: str(path) for name, path in work.inputs.items()}).decode()
    command = [sys.executable, "-c", script, str(tmp_path / "task"), inputs, str(work.outdir)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    original = job.outcomes[1][1]
    assert done.stdout == original.value
    for name, path in original.files.items():
        assert (work.outdir / name).read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize("recipe", [RECIPE, full(RECIPE)], ids=["lora", "full"])
def test_memory_between_tasks_changes_nothing(base: Inputs, tmp_path: Path, recipe: Recipe) -> None:
    job = Job(base, tmp_path, recipe, 2)
    warm = train.run(job.round(0, 0, "warm"))  # backwards: the live state is ahead of what this task asks for
    train._last.clear()
    cold = train.run(job.round(1, 0, "cold"))
    assert hashes_of(warm) == hashes_of(job.outcomes[0][0])
    assert hashes_of(cold) == hashes_of(job.outcomes[1][0])
    assert (warm.value, cold.value) == (job.outcomes[0][0].value, job.outcomes[1][0].value)


@pytest.mark.parametrize("recipe", [RECIPE, full(RECIPE)], ids=["lora", "full"])
def test_a_late_joiner_comes_to_the_same_state(base: Inputs, tmp_path: Path, recipe: Recipe) -> None:
    """A checkpoint of round 1 and the manifests after it, against all manifests from the start."""
    job = Job(base, tmp_path, recipe, 3)
    early = job.round(2, 0, "early")
    checkpoint = {"checkpoint": job.outcomes[1][0].files["checkpoint"], "carry": early.inputs["carry"]}
    params = TrainRound(recipe, 2, 0, 2, job.manifests[1:2], evaluate=True, checkpoint=True)
    train._last.clear()
    late = train.run(make_work(params, base | job.updates | checkpoint, tmp_path / "late"))
    assert late.value == job.outcomes[2][0].value
    assert hashes_of(late) == hashes_of(job.outcomes[2][0])


def test_seed_round_and_shard_change_what_is_learned(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, RECIPE, 1)
    other = job.round(0, 0, "seed")
    reseeded = TaskRun(
        msgspec.structs.replace(other.task, seed=6), other.inputs, other.outdir, 1, other.progress, other.log
    )
    updates = {hashes_of(outcome)["update"] for outcome in [*job.outcomes[0], train.run(reseeded)]}
    assert len(updates) == 3


def test_a_malformed_update_counts_as_absent(base: dict[str, Path], tmp_path: Path) -> None:
    """Attack: a worker publishes garbage to stop the job. Everybody leaves it out, so the state is that without it."""
    job = Job(base, tmp_path, RECIPE, 1)
    good = job.manifests[0].updates
    (tmp_path / "garbage").write_bytes(b"\xff" * 5000)
    garbage = bytes(31) + b"\x01"
    dirty = RoundManifest(0, (*good, garbage))
    params = TrainRound(RECIPE, 1, 0, 2, (dirty,), evaluate=True, checkpoint=False)
    inputs = base | job.updates | {f"update/{garbage.hex()}": tmp_path / "garbage"}
    said: list[str] = []
    work = make_work(params, inputs, tmp_path / "dirty")
    outcome = train.run(TaskRun(work.task, inputs, work.outdir, 1, work.progress, said.append))
    clean = train.run(make_work(msgspec.structs.replace(params, manifests=job.manifests), inputs, tmp_path / "clean"))
    assert outcome.value == clean.value
    assert outcome.metrics["refused_updates"] == 1
    assert "is no update to this model" in said[0]


def test_a_round_of_garbage_alone_changes_nothing(base: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"")
    start = Job(base, tmp_path, RECIPE, 1)
    manifest = RoundManifest(0, (bytes(32),))
    params = TrainRound(RECIPE, 1, 0, 2, (manifest,), evaluate=False, checkpoint=False)
    inputs = base | {f"update/{bytes(32).hex()}": tmp_path / "garbage"}
    outcome = train.run(make_work(params, inputs, tmp_path / "none"))
    assert value_of(outcome).state == value_of(start.outcomes[0][0]).state


def code_of(work: TaskRun) -> str:
    with pytest.raises(FallowError) as caught:
        train.run(work)
    return caught.value.code


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("learning_rate", "1e9", "E1707"),
        ("learning_rate", "nan", "E1707"),
        ("outer_momentum", "x", "E1707"),
        ("sequence_tokens", 100_000, "E1707"),
        ("sequence_tokens", 0, "E1707"),
        ("batch_sequences", 1 << 40, "E1707"),
        ("inner_steps", 0, "E1707"),
        ("method", "magic", "E1707"),
        ("lora_rank", 0, "E1707"),
        ("lora_targets", ("nothing",), "E1707"),
        ("learning_rate", "1000", "E1706"),
    ],
)
def test_settings_out_of_bounds(base: dict[str, Path], tmp_path: Path, setting: str, value: object, code: str) -> None:
    recipe = msgspec.structs.replace(full(RECIPE) if code == "E1706" else RECIPE, **{setting: value})
    params = TrainRound(recipe, 0, 0, 2, (), evaluate=False, checkpoint=False)
    assert code_of(make_work(params, base, tmp_path / "out")) == code


def test_hostile_carry_checkpoint_and_manifest(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, RECIPE, 1)
    (tmp_path / "bad").write_bytes(job.outcomes[0][0].files["carry"].read_bytes()[:-1])
    params = TrainRound(RECIPE, 1, 0, 2, job.manifests, evaluate=False, checkpoint=False)
    for name in ("carry", "checkpoint"):
        assert code_of(make_work(params, base | job.updates | {name: tmp_path / "bad"}, tmp_path / name)) == "E1705"
    assert code_of(make_work(params, base, tmp_path / "missing")) == "E1707"
    twice = msgspec.structs.replace(params, manifests=(RoundManifest(0, job.manifests[0].updates * 2),))
    assert code_of(make_work(twice, base | job.updates, tmp_path / "twice")) == "E1707"
    outside = msgspec.structs.replace(params, shard=2)
    assert code_of(make_work(outside, base | job.updates, tmp_path / "outside")) == "E1707"


def test_after_a_failed_task_the_next_one_is_right(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, RECIPE, 2)
    params = TrainRound(RECIPE, 2, 0, 2, job.manifests, evaluate=False, checkpoint=False)
    half = base | dict(list(job.updates.items())[:3])
    assert code_of(make_work(params, half, tmp_path / "half")) == "E1707"
    assert train.run(job.round(1, 0, "after")).value == job.outcomes[1][0].value


def test_cancelling_stops_at_the_next_step(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, RECIPE, 1)
    work, seen = job.round(0, 0, "cancel"), list[int]()

    def progress(done: int, total: int, note: str) -> None:
        seen.append(done)
        if done == 2:
            raise FallowError("E1402", "cancelled")

    assert code_of(TaskRun(work.task, work.inputs, work.outdir, 1, progress, work.log)) == "E1402"
    assert seen[-1] == 2
    assert train.run(job.round(0, 0, "uncancelled")).value == job.outcomes[0][0].value


def test_peft_reads_the_adapter_and_means_the_same(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, RECIPE, 2)
    outcome = job.finish()
    folder = tmp_path / "finish" / "adapter"
    assert sorted(outcome.files) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    tokens = torch.arange(20)[None]
    ours = train._last[0].model.network  # still holds the detours, at the finished state
    plain = AutoModelForCausalLM.from_pretrained(base["model"])
    theirs = PeftModel.from_pretrained(plain, folder)
    with torch.no_grad():
        mine, peft = ours(input_ids=tokens).logits, theirs(input_ids=tokens).logits
        untuned = load_model(base["model"]).network(input_ids=tokens).logits
    assert torch.allclose(mine, peft, atol=1e-5)
    assert not torch.allclose(untuned, peft, atol=1e-3)


def test_a_full_fine_tune_is_a_hugging_face_folder(base: dict[str, Path], tmp_path: Path) -> None:
    job = Job(base, tmp_path, full(RECIPE), 1)
    outcome = job.finish()
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= set(outcome.files)
    model = load_model(tmp_path / "finish" / "model")
    assert model.tokenizer("The old farmer")["input_ids"]
    theta = train._last[0].replica
    assert theta is not None
    for name, parameter in model.network.named_parameters():
        assert np.array_equal(parameter.numpy(), theta.state.theta[name])
