"""Whether exact training learns as well as fp32: the same data, starts and steps, three seeds, held-out loss.

`python benchmarks/exact_learning.py small` trains a 3.3 M-parameter model in full on the bytes of this repository's
documentation, `smol` SmolLM2-135M with LoRA. Both arms start from the same parameters and see the same batches; a seed
chooses both. Writes `results/exact_learning_SUBJECT.json`
and the curves as SVG into `docs/explanation/`. A claim holds when the means of both arms differ by no more than the
seeds of fp32 among themselves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _record import OURS, ROOT, Figure, Record
from exact_equality import converted, small_network
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.optimizers import ExactSchedule
from fallow.numerics.exact.training import Rules, Trainer
from fallow.workloads import lora
from fallow.workloads.model import load_model

SEEDS = (0, 1, 2)
SIZES = {"small": (4, 128, 100, 0.003), "smol": (2, 64, 25, 0.001)}
"""Sequences, tokens, steps, top learning rate."""
Curve = list[tuple[int, float]]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SIZES)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sequences, length, steps, rate = SIZES[options.subject]
    steps = options.steps or steps
    record = Record(__file__, "exact training ends at fp32's held-out loss, within the spread of three seeds")
    folder = options.model or (converted() if options.subject == "smol" else "")
    table = tokens_of(options.subject, folder, length)
    held, train = table[:8], table[8:]
    curves: dict[str, list[Curve]] = {"exact": [], "torch fp32": []}
    for seed in SEEDS:
        order = torch.randint(0, len(train), (steps, sequences), generator=torch.Generator().manual_seed(seed))
        schedule = ExactSchedule(rate, max(1, steps // 10), steps)
        for arm, curve in curves.items():
            network, trainable = start(options.subject, folder, seed)
            step, loss = (exact_arm if arm == "exact" else plain_arm)(network, trainable, schedule, held)
            points: Curve = []
            for at in range(steps):
                if at % max(1, steps // 5) == 0:
                    points.append((at, loss()))
                step(train[order[at]])
            points.append((steps, loss()))
            curve.append(points)
            print(arm, seed, [round(value, 4) for _, value in points], flush=True)
    ends = {arm: [points[-1][1] for points in curve] for arm, curve in curves.items()}
    spread = max(ends["torch fp32"]) - min(ends["torch fp32"])
    gap = abs(statistics.mean(ends["exact"]) - statistics.mean(ends["torch fp32"]))
    record.add(Figure(OURS, "held-out loss, exact", "nats", ends["exact"]))
    record.add(Figure("torch fp32", "held-out loss", "nats", ends["torch fp32"], version=torch.__version__))
    record.add(Figure(OURS, "difference of the means", "nats", [gap], goal=spread, less=True))
    record.write({"curves": curves, "spread": spread}, f"exact_learning_{options.subject}")
    draw(curves, options.subject)
    return 0


def start(subject: str, folder: str, seed: int) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    if subject == "small":
        network = small_network(seed=seed)
        return network, dict(network.named_parameters())
    network = load_model(Path(folder)).network
    return network, lora.inject(network, ("q_proj", "v_proj"), 8, 16)


def tokens_of(subject: str, folder: str, length: int) -> Tensor:
    """(sequences, length): the documentation as bytes, or as SmolLM2's tokens; sequences in a fixed random order."""
    text = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    if subject == "small":
        stream = torch.tensor(list(text.encode()), dtype=torch.int64)
    else:
        stream = torch.tensor(load_model(Path(folder)).tokenizer(text[:400_000])["input_ids"], dtype=torch.int64)
    table = stream[: len(stream) // length * length].view(-1, length)
    return table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]


Arm = tuple[Callable[[Tensor], object], Callable[[], float]]


def exact_arm(network: Any, trainable: Any, schedule: ExactSchedule, held: Tensor) -> Arm:
    model = exactify(network, trainable)
    trainer = Trainer(model, Rules(schedule, decay=0.1, clip_norm=1.0))
    return (lambda tokens: trainer.train([tokens])), (lambda: float(model.losses(held).double().mean()))


def plain_arm(network: Any, trainable: Any, schedule: ExactSchedule, held: Tensor) -> Arm:
    parameters = list(trainable.values())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    steps = iter(range(1 << 30))

    def loss_of(tokens: Tensor) -> Tensor:
        logits = network(input_ids=tokens, use_cache=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))

    def step(tokens: Tensor) -> None:
        optimizer.param_groups[0]["lr"] = schedule.rate(next(steps))
        loss_of(tokens).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def held_loss() -> float:
        return statistics.mean(float(loss_of(part)) for part in held.split(4))

    return step, held_loss


def draw(curves: dict[str, list[Curve]], subject: str) -> None:
    """The curves as an SVG, one line a seed, by hand: two arms and two axes want no library."""
    points = [point for arm in curves.values() for curve in arm for point in curve]
    low, high = min(y for _, y in points), max(y for _, y in points)
    last = max(x for x, _ in points)

    def place(x: float, y: float) -> str:
        return f"{60 + 520 * x / last:.1f},{20 + 300 * (high - y) / (high - low):.1f}"

    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="370" font-family="sans-serif" font-size="12">',
        '<rect width="600" height="370" fill="white"/><path d="M60,20 V320 H580" fill="none" stroke="black"/>',
        f'<text x="320" y="350" text-anchor="middle">step, {subject}</text>',
        f'<text x="52" y="24" text-anchor="end">{high:.2f}</text>',
        f'<text x="52" y="322" text-anchor="end">{low:.2f}</text>',
        f'<text x="580" y="336" text-anchor="middle">{last}</text>',
        '<text x="430" y="40" fill="#c0392b">torch fp32, 3 seeds</text>',
        '<text x="430" y="58" fill="#2456a6">exact, 3 seeds (dashed)</text>',
    ]
    for arm, style in (("torch fp32", 'stroke="#c0392b"'), ("exact", 'stroke="#2456a6" stroke-dasharray="6 5"')):
        for curve in curves[arm]:
            path = " ".join(place(x, y) for x, y in curve)
            lines.append(f'<polyline points="{path}" fill="none" stroke-width="1.5" {style}/>')
    (ROOT / "docs/explanation" / f"exact-learning-{subject}.svg").write_text("\n".join([*lines, "</svg>", ""]), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
