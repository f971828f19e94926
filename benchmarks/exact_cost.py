"""What exactness costs: a training step of SmolLM2-135M with LoRA (rank 8, 2 x 128 tokens) and of a 3.3 M-parameter
model in full (8 x 128 tokens), and a generated token, beside transformers in torch's fp32, in turns in one run.

`python benchmarks/exact_cost.py smol`, `small` or `tokens`; each writes `results/exact_cost_SUBJECT.json`. With
`--profile` it says where an exact step's time goes instead.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from _record import OURS, Figure, Record
from exact_equality import converted, small_network
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.generation import GrowingText, advance
from fallow.numerics.exact.optimizers import ExactSchedule
from fallow.numerics.exact.training import Rules, Trainer
from fallow.workloads import lora
from fallow.workloads.model import load_model

GOAL = 1.2
PROMPT, ANSWER = 64, 24


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=("smol", "small", "tokens"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    record = Record(__file__, "an exact training step, and an exact token, takes at most 1.2 times torch's fp32")
    torch.set_num_threads(options.threads)

    def folder() -> Path:
        return Path(options.model or converted())

    made: dict[str, tuple[str, Callable[[], Any]]] = {
        "smol": ("training step, SmolLM2-135M, LoRA", lambda: smol_steps(folder())),
        "small": ("training step, 3.3 M parameters", small_steps),
        "tokens": (f"{ANSWER} generated tokens, SmolLM2-135M", lambda: smol_tokens(folder())),
    }
    name, make = made[options.subject]
    exact, plain = make()
    if options.profile:
        profile(exact)
        return 0
    exact()
    plain()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(options.rounds):
        theirs.append(timed(plain))
        ours.append(timed(exact))
        print(f"{ours[-1]:.3f} s exact, {theirs[-1]:.3f} s fp32", file=sys.stderr, flush=True)
    record.add(Figure(OURS, name, "s", ours))
    record.add(Figure("torch fp32", name, "s", theirs, version=torch.__version__))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    record.add(Figure(OURS, f"{name}: times fp32", "", ratios, goal=GOAL, less=True))
    record.write({"threads": options.threads}, f"exact_cost_{options.subject}")
    return 0


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def profile(work: Callable[[], object]) -> None:
    work()
    profiler = cProfile.Profile()
    profiler.runcall(work)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(16)


def plain_step(network: Any, parameters: list[torch.nn.Parameter], tokens: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95))

    def step() -> None:
        logits = network(input_ids=tokens, use_cache=False).logits
        wide = logits[:, :-1].reshape(-1, logits.shape[-1])
        torch.nn.functional.cross_entropy(wide, tokens[:, 1:].reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def both_steps(networks: list[Any], trainable: list[Any], tokens: torch.Tensor) -> Any:
    trainer = Trainer(exactify(networks[0], trainable[0]), Rules(ExactSchedule(1e-4, 1, 10_000), clip_norm=1.0))
    return (lambda: trainer.train([tokens])), plain_step(networks[1], list(trainable[1].values()), tokens)


def smol_steps(folder: Path) -> Any:
    networks = [load_model(folder).network for _ in range(2)]
    trainable = [lora.inject(network, ("q_proj", "v_proj"), 8, 16) for network in networks]
    tokens = torch.randint(0, 49152, (2, 128), generator=torch.Generator().manual_seed(1))
    return both_steps(networks, trainable, tokens)


def small_steps() -> Any:
    networks = [small_network(), small_network()]
    trainable = [dict(network.named_parameters()) for network in networks]
    tokens = torch.randint(0, 1024, (8, 128), generator=torch.Generator().manual_seed(1))
    return both_steps(networks, trainable, tokens)


def smol_tokens(folder: Path) -> Any:
    """A token each, on and on behind a prompt."""
    network = load_model(folder).network
    prompt = torch.randint(0, 49152, (PROMPT,), generator=torch.Generator().manual_seed(1))
    model = exactify(network, {})
    text = GrowingText(prompt.tolist())
    cache = DynamicCache(config=network.config)
    following = [prompt[None]]

    def exact() -> None:
        for _ in range(ANSWER):
            advance(model, [text])

    @torch.inference_mode()
    def plain() -> None:
        for _ in range(ANSWER):
            found = network(input_ids=following[0], past_key_values=cache, use_cache=True, logits_to_keep=1)
            following[0] = found.logits[:, -1].argmax(-1)[None]

    return exact, plain


if __name__ == "__main__":
    sys.exit(main())
