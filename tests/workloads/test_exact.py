"""Rounds in exact arithmetic, and their audits: the same code on two sides must tell truth from lies."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.workloads.tiny import RECIPE, TEXT, make_model

from fallow.errors import FallowError
from fallow.kinds.rounds import RoundManifest
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.kinds.train.trace import UNREADABLE, Cut, Trace, audit_task, expected_answer, read_trace, theta_name
from fallow.wire import codec
from fallow.wire.blob_id import blob_id_of
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec
from fallow.wire.worker import WorkerFailed
from fallow.workloads import train
from fallow.workloads.task import TaskResult, TaskRun
from fallow.workloads.worker import attempt

LORA = msgspec.structs.replace(RECIPE, arithmetic="exact", inner_steps=3, batch_sequences=3)
FULL = msgspec.structs.replace(LORA, method="full", learning_rate="0.003")


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


@pytest.fixture(scope="module")
def chats(base: dict[str, Path]) -> dict[str, Path]:
    """Short chats, several of which lie in a row, and some that end in the midst of one."""
    lines = [line for line in TEXT.splitlines() if line]
    rows = [
        {"messages": [{"role": "user", "content": line[: n % 40]}, {"role": "assistant", "content": line[n % 40 :]}]}
        for n, line in enumerate(lines)
    ]
    path = base["data"].with_name("chats.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return base | {"data": path}


class Pool:
    """Blobs by id, and tasks run as a provider would."""

    def __init__(self, base: dict[str, Path], folder: Path) -> None:
        self.base, self.folder, self.count = base, folder, 0
        self.files: dict[bytes, Path] = {}

    def part(self, name: str, path: Path) -> Part:
        data = b"".join(p.read_bytes() for p in sorted(path.iterdir())) if path.is_dir() else path.read_bytes()
        blob = bytes(blob_id_of(data))
        self.files[blob] = path
        return Part(name, blob, len(data))

    def spec(self, params: TrainRound | TrainFinish, **inputs: Path) -> TaskSpec:
        named = {name.replace("__", "/"): path for name, path in inputs.items()}
        parts = tuple(self.part(name, path) for name, path in (self.base | named).items())
        return TaskSpec("train", codec.encode(params), parts, 5, 1, 60, 1 << 30)

    def run(self, spec: TaskSpec, threads: int = 1) -> tuple[TaskOutput, TaskResult]:
        self.count += 1
        outdir = self.folder / str(self.count)
        outdir.mkdir()
        inputs = {part.name: self.files[part.blob] for part in spec.inputs}
        work = TaskRun(spec, inputs, outdir, threads, lambda *_: None, lambda _: None)
        outcome = train.run(work)
        parts = tuple(self.part(name, path) for name, path in sorted(outcome.files.items()))
        return TaskOutput(outcome.value, parts), outcome


def a_round(recipe: Recipe, number: int = 0, manifests: tuple[RoundManifest, ...] = ()) -> TrainRound:
    return TrainRound(recipe, number, 0, 2, manifests, evaluate=True, checkpoint=False)


def trace_of(recipe: Recipe, output: TaskOutput) -> Trace:
    found = read_trace(recipe, output)
    assert found is not None
    return found


def false_links(pool: Pool, spec: TaskSpec, params: TrainRound, output: TaskOutput) -> list[int]:
    trace = trace_of(params.recipe, output)
    found: list[int] = []
    for index in range(trace.links):
        answer, _ = pool.run(audit_task(spec, params, trace, (index,), 1))
        if answer != expected_answer(trace, (index,)):
            found.append(index)
    return found


@pytest.mark.parametrize("recipe", [LORA, FULL], ids=["lora", "full"])
def test_every_link_of_an_honest_round_is_confirmed(base: dict[str, Path], tmp_path: Path, recipe: Recipe) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(recipe))
    output, _ = pool.run(spec)
    trace = trace_of(recipe, output)
    assert (trace.cut, trace.links) == (Cut(3, 1), 9)
    train._last.clear()
    assert false_links(pool, spec, params, output) == []


def test_a_round_is_cut_as_its_recipe_allows_and_its_bits_stay_the_same(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    updates: set[bytes] = set()
    for trace_bytes, cut in ((1 << 40, Cut(3, 1)), (4_700_000, Cut(1, 1)), (0, Cut(1, 3))):
        recipe = msgspec.structs.replace(FULL, trace_bytes=trace_bytes)
        spec = pool.spec(params := a_round(recipe))
        output, outcome = pool.run(spec)
        assert trace_of(recipe, output).cut == cut
        assert false_links(pool, spec, params, output) == []
        updates.add(outcome.files["update"].read_bytes())
    assert len(updates) == 1


def test_a_round_that_the_disk_refuses_fails_with_a_code(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(a_round(FULL))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # less than a state
    try:
        failed = attempt(bytes(32), lambda: pool.run(spec))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(failed, WorkerFailed)
    assert (failed.code, failed.retryable) == ("E1603", True)


def test_threads_change_no_bit(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(a_round(LORA))
    outputs = [pool.run(spec, threads=threads)[0] for threads in (1, 2, 3)]
    assert outputs[0] == outputs[1] == outputs[2]


def test_rounds_carry_on_and_their_audits_start_where_they_did(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    _, first = pool.run(pool.spec(a_round(LORA)))
    manifest = RoundManifest(0, (blob_id_of(first.files["update"].read_bytes()),))
    params = a_round(LORA, 1, (manifest,))
    update = f"update__{manifest.updates[0].hex()}"
    spec = pool.spec(params, carry=first.files["carry"], **{update: first.files["update"]})
    output, second = pool.run(spec)
    assert false_links(pool, spec, params, output) == []
    losses = [float(codec.decode(TrainValue, one.value).loss) for one in (first, second)]
    assert losses[1] < losses[0]
    finish = pool.spec(TrainFinish(LORA, (manifest,)), **{update: first.files["update"]})
    done, _ = pool.run(finish)
    assert codec.decode(TrainValue, done.value).state == codec.decode(TrainValue, second.value).state
    ahead = pool.spec(a_round(LORA, 1), carry=first.files["carry"], own=first.files["update"])
    output, _ = pool.run(ahead)
    assert false_links(pool, ahead, a_round(LORA, 1), output) == []


def test_states_that_are_none_are_answered_as_such(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(LORA))
    output, outcome = pool.run(spec)
    trace = trace_of(LORA, output)
    for number, change in enumerate((lambda raw: raw[:-1], lambda raw: raw + b"x", with_nan, lambda _: b"")):
        bad = tmp_path / f"bad{number}"
        bad.write_bytes(change(outcome.files[theta_name(1)].read_bytes()))
        false = trace._replace(parts=trace.parts | {theta_name(1): pool.part(theta_name(1), bad)})
        answer, _ = pool.run(audit_task(spec, params, false, (3, 5), 1))
        assert codec.decode(TrainChecked, answer.value).links == ((UNREADABLE,), (UNREADABLE, UNREADABLE))


def with_nan(raw: bytes) -> bytes:
    return raw[:-4] + np.float32("nan").tobytes()


def test_another_update_or_last_state_is_noticed_by_any_audit(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(LORA))
    output, _ = pool.run(spec)
    for name, other in (("update", "carry"), (theta_name(3), theta_name(2)), (theta_name(0), theta_name(1))):
        trace = trace_of(LORA, output)
        false = trace._replace(parts=trace.parts | {name: replace_blob(trace.parts[name], trace.parts[other])})
        answer, _ = pool.run(audit_task(spec, params, false, (4,), 1))
        assert answer != expected_answer(false, (4,)), name


def replace_blob(part: Part, other: Part) -> Part:
    return Part(part.name, other.blob, other.size_bytes)


def test_a_wrong_cut_is_answered_with_the_right_one(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(LORA))
    output, _ = pool.run(spec)
    trace = trace_of(LORA, output)._replace(cut=Cut(1, 1))
    answer, _ = pool.run(audit_task(spec, params, trace, (1,), 1))
    found = codec.decode(TrainChecked, answer.value)
    assert (found.units, found.every) == (3, 1)
    assert answer != expected_answer(trace, (1,))


@pytest.mark.parametrize(
    "change", [{"units": 0}, {"units": 9}, {"every": 0}, {"units": 2, "every": 2}, {"links": (9,)}]
)
def test_links_that_cannot_be_are_refused(base: dict[str, Path], tmp_path: Path, change: dict[str, object]) -> None:
    pool = Pool(base, tmp_path)
    params = TrainAudit(a_round(LORA), 3, 1, (1,))
    spec = pool.spec(a_round(LORA))
    spec = msgspec.structs.replace(spec, params=codec.encode(msgspec.structs.replace(params, **change)))
    with pytest.raises(FallowError) as caught:
        pool.run(spec)
    assert caught.value.code == "E1707"


def test_an_audit_does_not_leave_a_trace_in_the_work_after_it(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(LORA))
    before, _ = pool.run(spec)
    false_links(pool, spec, params, before)
    assert pool.run(spec)[0] == before


def test_a_loss_that_is_not_finite_ends_the_round(base: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(base, tmp_path)
    wild = msgspec.structs.replace(FULL, learning_rate="1000", clip_norm="0", inner_steps=8)
    with pytest.raises(FallowError) as caught:
        pool.run(pool.spec(a_round(wild)))
    assert caught.value.code == "E1706"


@pytest.mark.parametrize("data", ["base", "chats"])
def test_exact_and_fp32_learn_the_same(data: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pool = Pool(request.getfixturevalue(data), tmp_path)
    losses: dict[str, float] = {}
    for arithmetic in ("exact", "fp32"):
        recipe = msgspec.structs.replace(LORA, arithmetic=arithmetic, inner_steps=8, sequence_tokens=64)
        _, first = pool.run(pool.spec(a_round(recipe)))
        manifest = RoundManifest(0, (blob_id_of(first.files["update"].read_bytes()),))
        finish = TrainFinish(recipe, (manifest,))
        done, _ = pool.run(pool.spec(finish, **{f"update__{manifest.updates[0].hex()}": first.files["update"]}))
        losses[arithmetic] = float(codec.decode(TrainValue, done.value).loss)
    assert losses["exact"] == pytest.approx(losses["fp32"], abs=0.01)


def test_rounds_on_chats_are_audited_too(chats: dict[str, Path], tmp_path: Path) -> None:
    pool = Pool(chats, tmp_path)
    recipe = msgspec.structs.replace(LORA, sequence_tokens=64)
    spec = pool.spec(params := a_round(recipe))
    output, _ = pool.run(spec)
    dataset = train._last[0].dataset
    assert dataset is not None
    assert dataset.train.first.any()
    assert 0 < dataset.train.counted < dataset.train.learned.size
    train._last.clear()
    assert false_links(pool, spec, params, output) == []
    other, _ = pool.run(pool.spec(a_round(msgspec.structs.replace(recipe, loss="all"))))
    assert other.parts != output.parts


def test_params_of_all_kinds_are_told_apart() -> None:
    audit = TrainAudit(a_round(LORA), 3, 1, (1,))
    assert codec.decode(TrainParams, codec.encode(audit)) == audit
