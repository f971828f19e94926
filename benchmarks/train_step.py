"""A training step as a provider's worker does it: rounds of a model of 3.3 million parameters in a real worker process,
in its box or, with `--unboxed`, outside of one. The first round of each worker is not counted.

`python benchmarks/train_step.py [--unboxed] [--rounds N] [--workers N]`. Prints one JSON line per figure; writes
`results/train_step.json`. What the box costs is measured in turns: `old_and_new.py --without=--unboxed`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from _record import OURS, Figure, Record
from fallow.adapters.runners.process import ProcessRunner
from fallow.kinds.train.tasks import TrainRound
from fallow.ports import READ, WORK, WorkerLimits
from fallow.units import GIB
from fallow.wire.tasks import Recipe
from worker_memory import TEXT, THREADS, model_of, task

STEPS = 10
RECIPE = Recipe(method="full", batch_sequences=8, inner_steps=STEPS, rounds=100, holdout_sequences=8)


async def steps_ms(model: Path, home: Path, rounds: int, *, boxed: bool) -> tuple[float, list[float]]:
    """-> how long a worker took to be ready, and a step of each round."""
    for name in (READ, WORK):
        (home / name).mkdir(parents=True)
    data = home / READ / "data.txt"
    data.write_text(TEXT, "utf-8")
    said: asyncio.Queue[Any] = asyncio.Queue()

    def hear(messages: list[Any]) -> None:
        for message in messages:
            said.put_nowait(message)

    spent, began = list[float](), time.perf_counter()
    limits = WorkerLimits(ram_bytes=4 * GIB, threads=THREADS, reads=(model,))
    async with ProcessRunner(boxed=boxed).open(home, limits, hear, lambda _: None) as worker:
        await said.get()
        ready_ms = 1e3 * (time.perf_counter() - began)
        for number in range(rounds + 1):
            params = TrainRound(RECIPE, 0, 0, 1, (), evaluate=False, checkpoint=False)
            began = time.perf_counter()
            await task(worker, said, params, {"model": model, "data": data}, home / WORK / f"out{number}")
            spent.append(1e3 * (time.perf_counter() - began) / STEPS)
    return ready_ms, spent[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unboxed", action="store_true", help="the worker lives in no box")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    record = Record(__file__, "a box costs a training step nothing")
    ready, steps = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as temp:
        model = model_of("small", Path(temp))
        for number in range(options.workers):
            home = Path(temp) / f"worker{number}"
            ready_ms, spent = asyncio.run(steps_ms(model, home, options.rounds, boxed=not options.unboxed))
            ready.append(ready_ms)
            steps += spent
    record.add(Figure(OURS, "a worker's start", "ms", ready))
    record.add(Figure(OURS, "a training step, 3.3 M parameters", "ms", steps))
    record.write()


if __name__ == "__main__":
    main()
