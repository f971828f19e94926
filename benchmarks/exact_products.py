"""What exactness costs: a linear layer's three products with everything that they need (quantisation, folding, the
gradient grid), beside torch's fp32 products of the same matrices, in turns.

On a CPU the time is the processor time of one thread, which other work on the machine disturbs little; `--threads N`
takes wall time with N threads instead, for a quiet machine. On CUDA (`--device cuda`) the time is wall time between
synchronisations, the peer is bf16, and the figure is the share of its speed.

    python benchmarks/exact_products.py [--rounds N] [--threads N] [--device cuda] [--shapes 256,1536,576 ...]

A shape is tokens, outputs, inputs. `layer` is forward, input gradient and weight gradient of one sequence; `weights`
the quantisation of the matrix into panels for both ways, paid once a step where the matrix is trained and never where
it is frozen. Prints one JSON line per figure and writes every round to `results/exact_products.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from _record import OURS, Figure, Record
from fallow.numerics.exact import format as formats
from fallow.numerics.exact import native, product, routes
from fallow.numerics.exact.format import Grid

CLAIM = "an exact linear layer takes at most 1.0 times torch's fp32; on a GPU at least half of bf16's throughput"
SHAPES = ((256, 1536, 576), (256, 576, 1536), (256, 576, 576), (256, 192, 576), (256, 49152, 576), (512, 512, 512),
          (1024, 1024, 1024), (2048, 2048, 2048))  # fmt: skip
DECODE = ((1, 1536, 576), (1, 576, 1536), (1, 576, 576), (1, 49152, 576))
CUDA = ((4096, 4096, 4096), (8192, 8192, 8192), (2048, 49152, 2048))
SLOW_ROUTES_BELOW = 1_100_000_000
Run = Callable[[], object]


class Layer:
    """The matrices of one shape, and what is raced over them."""

    def __init__(self, tokens: int, outputs: int, inputs: int, device: str) -> None:
        generator = torch.Generator().manual_seed(tokens + outputs + inputs)
        self.x, self.w, self.dy = (
            torch.randn(shape, generator=generator).to(device)
            for shape in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
        )
        self.total = torch.zeros(outputs, inputs, dtype=torch.int64, device=device)
        self.work = tokens * outputs * inputs

    def peer(self, dtype: torch.dtype) -> dict[str, Run]:
        x, w, dy = (matrix.to(dtype) for matrix in (self.x, self.w, self.dy))
        return {"forward": lambda: x @ w.T, "input gradient": lambda: dy @ w, "weight gradient": lambda: dy.T @ x}

    def exact(self, route: str) -> dict[str, Run]:
        """The three products; the weight gradient takes the forward pass's grid, as training does."""
        with routes.use(route):
            weights, grid = product.Weights(self.w), formats.quantise(self.x)
        batch = Grid(grid.q[None], grid.step[None])
        few = self.x.shape[0] <= 4
        runs: dict[str, Run] = {
            "forward": (lambda: product.linear(self.x, weights)) if few else (
                lambda: product.product(formats.quantise(self.x), weights)),
            "input gradient": lambda: product.product_folded(formats.quantise(self.dy, weights.step), weights),
            "weight gradient": lambda: product.add_gradient(self.total, self.dy[None], batch),
            "weights": lambda: weights.update(self.w),
        }  # fmt: skip
        return {name: _on(route, run) for name, run in runs.items()}


def _on(route: str, run: Run) -> Run:
    def routed() -> None:
        with routes.use(route):
            run()

    return routed


class Clock:
    """Seconds of one run."""

    def __init__(self, device: str, threads: int) -> None:
        self._cuda, self._read = (
            device != "cpu",
            time.thread_time if threads == 1 and device == "cpu" else time.perf_counter,
        )

    def seconds(self, run: Run) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        began = self._read()
        run()
        if self._cuda:
            torch.cuda.synchronize()
        return self._read() - began


def race(clock: Clock, runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Everybody's seconds, in turns, after one round that is not counted."""
    for run in runs.values():
        clock.seconds(run)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(clock.seconds(run))
    return taken


def measure(
    record: Record, clock: Clock, shape: tuple[int, int, int], options: argparse.Namespace
) -> dict[str, list[float]]:
    """One shape: the layer's ratio as a figure; returns where the time went, everybody's milliseconds."""
    layer, cuda = Layer(*shape, options.device), options.device != "cpu"
    names = ["native"] if not cuda else ["fp64", "int8"]
    if not cuda and shape[0] > 1 and layer.work < SLOW_ROUTES_BELOW:
        names += ["int8", "fp64"]
    peer = "bf16" if cuda else "fp32"
    runs = {f"{peer} {part}": run for part, run in layer.peer(torch.bfloat16 if cuda else torch.float32).items()}
    parts = ["forward"] if shape[0] == 1 else ["forward", "input gradient", "weight gradient"]
    for name in names:
        runs |= {f"{name} {part}": run for part, run in layer.exact(name).items()}
    taken = race(clock, runs, options.rounds)
    label = "x".join(map(str, shape))

    def whole(name: str) -> list[float]:
        return [sum(times) for times in zip(*(taken[f"{name} {part}"] for part in parts), strict=True)]

    what = "decode" if shape[0] == 1 else "layer"
    for name in names:
        ratios = [ours / theirs for ours, theirs in zip(whole(name), whole(peer), strict=True)]
        if cuda:
            record.add(Figure(OURS, f"{label} {what}, {name}: share of bf16's speed", "", [1 / r for r in ratios], 0.5))
        else:
            goal = 1.0 if name == "native" else None
            record.add(Figure(OURS, f"{label} {what}, {name} / {peer}", "", ratios, goal, less=True))
    return {f"{label} {name}": [round(1e3 * second, 4) for second in times] for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shapes", nargs="*", type=lambda text: tuple(map(int, text.split(","))))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = Record(__file__, CLAIM)
    cuda = options.device != "cpu"
    if not cuda and not native.available():
        parser.error(f"no compiled kernels here: {native.reason()}")
    clock = Clock(options.device, options.threads)
    milliseconds: dict[str, list[float]] = {}
    for shape in options.shapes or (CUDA if cuda else SHAPES + DECODE):
        milliseconds |= measure(record, clock, shape, options)
    kernels = native.kernels()
    raw = {
        "clock": "wall" if cuda or options.threads > 1 else "processor time of one thread", "torch": torch.__version__,
        "threads": options.threads, "device": torch.cuda.get_device_name() if cuda else "cpu",
        "instructions": kernels.isa(native.cap()) if kernels else "", "milliseconds": milliseconds,
    }  # fmt: skip
    record.write(raw, "exact_products_cuda" if cuda else "")


if __name__ == "__main__":
    main()
