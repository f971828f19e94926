"""What commitments cost a worker, and what the check of one drawn link costs: a round of 100 steps of SmolLM2-135M with
LoRA (rank 8, 2 x 128 tokens) and of a 3.3 M-parameter model in full (8 x 128 tokens), on real text.

`python benchmarks/exact_audit.py smol` or `small`; each writes `results/exact_audit_SUBJECT.json`. The round is the
task that a provider's worker runs (`workloads/train.py`); its files are then taken in as the provider does, and checks
run on them, in the worker that did the round (warm) and in a fresh process (cold). A check is the whole task: into the
round's first state, the link, and from the last state to the update; every answer is held against the claim. Shares are
of the round's processor time; the range of a figure over draws is from the cheapest link to the dearest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from _record import OURS, ROOT, Figure, Record
from exact_cost import plain_step
from exact_equality import converted, small_network
from fallow.adapters.blobs_disk import DiskBlobs
from fallow.kinds.chain import PREFIX
from fallow.kinds.train.tasks import TrainRound
from fallow.kinds.train.trace import (
    Trace,
    audit_task,
    cut_for,
    expected_answer,
    kept_bytes,
    read_trace,
    trace_bytes_for,
)
from fallow.units import GIB, BlobId
from fallow.wire import codec
from fallow.wire.blob_id import blob_id_of
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec
from fallow.workloads import exact, lora, state_files, train
from fallow.workloads.data import Rendering, load_dataset
from fallow.workloads.model import load_model
from fallow.workloads.task import TaskResult, TaskRun

GOAL, STEP_GOAL = 0.01, 1.2
TEXT = ROOT / "src" / "fallow" / "cli" / "demo_data" / "text.txt"
SUBJECTS = {
    "smol": ("SmolLM2-135M, LoRA", Recipe("lora", batch_sequences=2, learning_rate="0.0005")),
    "small": ("3.3 M parameters", Recipe("full", batch_sequences=8, learning_rate="0.002")),
}


class Times(msgspec.Struct):
    """Seconds: on the wall, of all of the process's threads, and the same of the replayed links alone."""

    wall: float
    cpu: float
    links_wall: float = 0.0
    links_cpu: float = 0.0
    load_s: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--bare", type=int, default=0, help="steps of the round without commitments (default: as many)")
    parser.add_argument("--plain", type=int, default=4, help="steps in torch's fp32, three times over")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="")
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.threads)
        return 0
    record = Record(__file__, "the check of one micro-batch costs a hundredth of a round of 100 steps at most")
    with tempfile.TemporaryDirectory(prefix="fallow-exact-audit-") as name:
        Bench(options, record, Path(name)).run()
    record.write({"threads": options.threads}, f"exact_audit_{options.subject}")
    return 0


class Bench:
    """One subject: its model, its round, and the checks of it."""

    def __init__(self, options: argparse.Namespace, record: Record, folder: Path) -> None:
        self.options, self.record, self.folder = options, record, folder
        self.label, recipe = SUBJECTS[options.subject]
        self.model = Path(options.model or converted()) if options.subject == "smol" else small_folder(folder / "model")
        parameters = sum(p.numel() for p in trained(self.model, recipe).values())
        recipe = msgspec.structs.replace(recipe, arithmetic="exact", inner_steps=options.steps, warmup_steps=10)
        full = msgspec.structs.replace(recipe, inner_steps=100)
        cut = cut_for(msgspec.structs.replace(full, trace_bytes=trace_bytes_for(full, parameters)), parameters)
        # a shorter round is cut as one of 100 steps
        self.recipe = msgspec.structs.replace(recipe, trace_bytes=kept_bytes(options.steps, parameters, cut))
        self.inputs = {"model": self.model, "data": TEXT}
        self.writing = Times(0.0, 0.0)

    def run(self) -> None:
        options, steps = self.options, self.options.steps
        self.round("warm", 2, committed=False)
        plain = self.plain_step()
        values = [timed(plain)[0].cpu for _ in range(options.plain)]
        bare, _ = self.round("bare", options.bare or steps, committed=False)
        values += [timed(plain)[0].cpu for _ in range(options.plain)]
        made, outcome = self.round("round", steps, committed=True)
        values += [timed(plain)[0].cpu for _ in range(options.plain)]
        blobs = DiskBlobs(self.folder / "blobs", 100 * GIB)
        taking, output = timed(lambda: taken(blobs, outcome))
        trace = read_trace(self.recipe, output)
        assert trace is not None, "an honest round"
        bare_steps = options.bare or steps
        self.figure("a step without commitments", "s", [bare.cpu / bare_steps])
        self.figure("a step with commitments", "s", [made.cpu / steps])
        self.figure("a step without commitments, on the wall", "s", [bare.wall / bare_steps])
        self.figure("a step with commitments, on the wall", "s", [made.wall / steps])
        self.figure("copying and writing states, share of a step", "", [self.writing.cpu / made.cpu])
        self.figure("steps held up by it, share of the round's wall", "", [self.writing.wall / made.wall])
        self.figure("taking the files in, share of a step", "", [taking.cpu / made.cpu])
        self.figure("taking the files in, on the wall, share of the round's wall", "", [taking.wall / made.wall])
        self.figure("commitments, share of a step", "", [(self.writing.cpu + taking.cpu) / made.cpu])
        self.record.add(Figure("torch fp32", f"{self.label}: a step", "s", values, version=torch.__version__))
        plain_s = statistics.median(values)
        self.figure("a step without commitments, times fp32", "", [bare.cpu / bare_steps / plain_s])
        self.figure("a step with commitments, times fp32", "", [(made.cpu + taking.cpu) / steps / plain_s], STEP_GOAL)
        kept = sum(part.size_bytes for part in output.parts if part.name.startswith(PREFIX))
        self.figure("kept of a round", "GB", [kept / 1e9])
        self.figure("links of a round", "", [trace.links])
        self.checks(blobs, trace, made)
        blobs.close()

    def figure(self, what: str, unit: str, values: list[float], goal: float | None = None) -> None:
        self.record.add(Figure(OURS, f"{self.label}: {what}", unit, values, goal=goal, less=goal is not None))

    def params(self, steps: int) -> TrainRound:
        recipe = msgspec.structs.replace(self.recipe, inner_steps=steps)
        return TrainRound(recipe, 0, 0, 2, (), evaluate=False, checkpoint=False)

    def spec(self, steps: int) -> TaskSpec:
        parts = tuple(Part(name, bytes(blob_id_of(name.encode())), 1) for name in self.inputs)
        return TaskSpec("train", codec.encode(self.params(steps)), parts, 1, 1, 3600, 3 * GIB)

    def round(self, name: str, steps: int, *, committed: bool) -> tuple[Times, TaskResult]:
        outdir = self.folder / name
        outdir.mkdir()
        work = TaskRun(self.spec(steps), self.inputs, outdir, self.options.threads, told, lambda _: None)
        with writing(Times(0.0, 0.0) if committed else None) as self.writing:
            return timed(lambda: train.run(work))

    def plain_step(self) -> Callable[[], object]:
        """The same step in torch's fp32."""
        network = load_model(self.model).network
        parameters = [p.requires_grad_(True) for p in trained(self.model, self.recipe, network).values()]
        dataset = load_dataset(TEXT, load_model(self.model).tokenizer, Rendering(self.recipe.sequence_tokens), 16)
        rows = dataset.train[: self.recipe.batch_sequences]
        step = plain_step(network, parameters, rows.sequences().tokens)
        step()
        return step

    def checks(self, blobs: DiskBlobs, trace: Trace, made: Times) -> None:
        last = trace.links - 1
        middle = trace.links // 2 // trace.cut.units * trace.cut.units
        draws = sorted({0, min(1, last), middle, min(middle + 1, last), last})
        warm = [self.check(blobs, trace, draw) for draw in draws]
        cold = [self.cold(blobs, trace, draw) for draw in (0, last)]
        self.figure("a link's replay", "s", [one.links_cpu for one in warm])
        self.figure("audit of one micro-batch", "s", [one.cpu for one in warm])
        self.figure("audit of one micro-batch, on the wall", "s", [one.wall for one in warm])
        self.figure("audit of one micro-batch, share of a round", "", [one.cpu / made.cpu for one in warm], GOAL)
        self.figure("the same on the wall, share of the round's wall", "", [one.wall / made.wall for one in warm])
        rest = [one.wall - one.load_s for one in cold]
        self.figure("in a cold worker: loading the model and the data, on the wall", "s", [one.load_s for one in cold])
        self.figure("in a cold worker: the rest of the audit, on the wall", "s", rest)

    def task(self, blobs: DiskBlobs, trace: Trace, draw: int) -> tuple[TaskSpec, dict[str, Path]]:
        task = audit_task(self.spec(trace.steps), self.params(trace.steps), trace, (draw,), 1)
        states = {part.name: blobs.path(BlobId(part.blob)) for part in task.inputs if part.name.startswith(PREFIX)}
        return task, self.inputs | states

    def check(self, blobs: DiskBlobs, trace: Trace, draw: int) -> Times:
        task, inputs = self.task(blobs, trace, draw)
        found, outcome = audit(task, inputs, self.options.threads)
        if outcome.value != expected_answer(trace, (draw,)).value:
            raise SystemExit(f"link {draw} came out differently")
        print(f"link {draw}: {found.cpu:.3f} s, of which the link {found.links_cpu:.3f} s", file=sys.stderr, flush=True)
        return found

    def cold(self, blobs: DiskBlobs, trace: Trace, draw: int) -> Times:
        task, inputs = self.task(blobs, trace, draw)
        file = self.folder / f"cold-{draw}"
        file.write_bytes(msgspec.msgpack.encode((task, {name: str(path) for name, path in inputs.items()})))
        command = [sys.executable, __file__, self.options.subject, "--child", str(file)]
        command += ["--threads", str(self.options.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        value, found = msgspec.msgpack.decode(done.stdout, type=tuple[bytes, Times])
        if value != expected_answer(trace, (draw,)).value:
            raise SystemExit(f"link {draw} came out differently in another process")
        return found


def child(file: Path, threads: int) -> None:
    """One check in this fresh process."""
    task, named = msgspec.msgpack.decode(file.read_bytes(), type=tuple[TaskSpec, dict[str, str]])
    found, outcome = audit(task, {name: Path(path) for name, path in named.items()}, threads)
    sys.stdout.buffer.write(msgspec.msgpack.encode((outcome.value, found)))


def audit(task: TaskSpec, inputs: dict[str, Path], threads: int) -> tuple[Times, TaskResult]:
    """The whole task of a check, with the replay of its link apart."""
    replay, parts = exact.replay, list[Times]()

    def measured(*args: Any) -> tuple[bytes, ...]:
        found, answer = timed(lambda: replay(*args))
        parts.append(found)
        return answer

    exact.replay = measured
    try:
        with tempfile.TemporaryDirectory() as outdir:
            work = TaskRun(task, inputs, Path(outdir), threads, told, lambda _: None)
            found, outcome = timed(lambda: train.run(work))
    finally:
        exact.replay = replay
    found.links_wall, found.links_cpu = parts[0].wall, parts[0].cpu
    found.load_s = outcome.metrics["load_ms"] / 1e3
    return found, outcome


def timed(work: Any) -> tuple[Times, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu), found


def told(done: int, total: int, note: str) -> None:
    if done and done % 10 == 0 and os.environ.get("EXACT_AUDIT_TELL"):
        print(f"{done}/{total} {note}", file=sys.stderr, flush=True)


@contextmanager
def writing(total: Times | None) -> Iterator[Times]:
    """Times what states cost: `wall` is how long steps were held up, `cpu` what copying and writing took, in whatever
    thread. With None, states are neither copied nor written."""
    write, to_disk, found = state_files.StateFiles.write, state_files.write_whole, total or Times(0.0, 0.0)

    def measured_write(*args: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        write(*args)
        found.wall, found.cpu = found.wall + time.perf_counter() - wall, found.cpu + time.thread_time() - cpu

    def measured_to_disk(*args: Any) -> None:
        cpu = time.thread_time()
        to_disk(*args)
        found.cpu += time.thread_time() - cpu

    state_files.StateFiles.write = (lambda *_: None) if total is None else measured_write
    state_files.write_whole = measured_to_disk
    try:
        yield found
    finally:
        state_files.StateFiles.write, state_files.write_whole = write, to_disk


def taken(blobs: DiskBlobs, outcome: TaskResult) -> TaskOutput:
    """The files of a round as blobs, as a provider takes them in."""
    parts: list[Part] = []
    for name, path in sorted(outcome.files.items()):
        blob = blobs.take_file(path)
        blobs.pin(blob, "round")
        parts.append(Part(name, blob, blobs.size(blob)))
    return TaskOutput(outcome.value, tuple(parts))


def trained(folder: Path, recipe: Recipe, network: Any = None) -> dict[str, Any]:
    network = network or load_model(folder).network
    if recipe.method == "lora":
        return lora.inject(network, recipe.lora_targets, recipe.lora_rank, recipe.lora_alpha)
    return dict(network.named_parameters())


def small_folder(folder: Path) -> Path:
    """The 3.3 M-parameter model as a folder, with a tokenizer of its 1,024 tokens made from the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train([str(TEXT)], trainer)
    small_network().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
