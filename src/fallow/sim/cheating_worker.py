"""A worker process that lies on purpose, for tests and demos: `python -m fallow.sim.cheating_worker WAY --fd N`. A
network that never met a cheat has proved nothing. Nothing here helps a real cheat, who would change the code.

`lazy` does less work than it claims, in ways that give well-formed answers: one inner step instead of all of them, one
token instead of the answer, nothing instead of the echo, a program without its input. `skip` and `flip` are lies in
exact training: a tenth of the steps left out, one element of one gradient altered. Checks are done honestly, since they
betray at once who is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate
from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.kinds.wasm.tasks import WasmTask
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneTask
from fallow.wire.tasks import MAX_PARAMS_BYTES, Recipe
from fallow.wire.worker import Preload
from fallow.workloads import worker
from fallow.workloads.lane import SendAnswers, WorkerLane, open_lane
from fallow.workloads.task import TaskResult, TaskRun

if TYPE_CHECKING:
    from fallow.workloads.exact import ExactRound

WAYS = ("lazy", "skip", "flip")
FLIPPED = 1 << 36
"""What `flip` adds to one element of one gradient, in counts of 2^-40."""
RunWork = Callable[[TaskRun], TaskResult]
ChainMaker = Callable[[TaskRun, "ExactRound", Recipe], dict[str, Path]]


def less_work(kind: str, params: bytes) -> bytes:
    """Parameters for less of the same work; unchanged where there is nothing to save."""
    try:
        if kind == "train":
            return _less_training(params)
        if kind == "generate":
            asked = decode(Generate, params, MAX_PARAMS_BYTES)
            return encode(msgspec.structs.replace(asked, max_tokens=min(asked.max_tokens, 1)))
        if kind == "wasm":
            run = decode(WasmTask, params, MAX_PARAMS_BYTES)
            return encode(msgspec.structs.replace(run, args=(), stdin=""))
    except FallowError:
        return params
    return b"1" if kind == "spin" else b""


def _less_training(params: bytes) -> bytes:
    found = decode(TrainParams, params, MAX_PARAMS_BYTES)
    if not isinstance(found, TrainRound) or found.recipe.exact:  # `false_chain` leaves those steps out, in good form
        return params
    recipe = msgspec.structs.replace(found.recipe, inner_steps=min(found.recipe.inner_steps, 1))
    return encode(msgspec.structs.replace(found, recipe=recipe))


def lazy(run: RunWork) -> RunWork:
    """The workload, given less to do."""

    def less(work: TaskRun) -> TaskResult:
        task = msgspec.structs.replace(work.task, params=less_work(work.task.kind, work.task.params))
        return run(TaskRun(task, work.inputs, work.outdir, work.threads, work.progress, work.log))

    return less


class LazyLane:
    """A lane that gives its engine less to do than it was asked for."""

    def __init__(self, kind: str, lane: WorkerLane) -> None:
        self._kind, self._lane = kind, lane
        self.context_tokens, self.settle, self.cancel = lane.context_tokens, lane.settle, lane.cancel

    def take(self, tasks: Iterable[LaneTask]) -> None:
        kind = self._kind
        self._lane.take([LaneTask(t.number, less_work(kind, t.params), t.seed, t.stream) for t in tasks])


def false_chain(way: str, honest: ChainMaker) -> ChainMaker:
    """`exact.run_chain` with some false links: what they give is written down and claimed as if they had been done."""

    def run_chain(work: TaskRun, chain: ExactRound, recipe: Recipe) -> dict[str, Path]:
        untold: Any = chain
        take, steps = chain.take, recipe.inner_steps
        left_out = {"skip": -(-steps // 10), "lazy": steps - 1}.get(way, 0)

        def false_take(link: Any, cut: Any) -> None:
            if link.first < left_out:
                untold.sums = type(untold.sums)()
            elif way == "flip" and (link.first, link.unit) == (0, 0):
                _flip(untold, lambda: take(link, cut), closes=link.until == cut.units)
            else:
                take(link, cut)

        untold.take = false_take
        return honest(work, chain, recipe)

    return run_chain


def _flip(chain: Any, take: Callable[[], None], *, closes: bool) -> None:
    """A link with one element altered: of the sum that it gives, or of the one that its optimiser's step takes."""
    if not closes:
        take()
    name, parameter = max(chain.model.trainable.items())
    chain.sums.total(name, parameter).view(-1)[0] += FLIPPED
    if closes:
        take()


def cheat(way: str) -> None:
    """Have this process lie from now on. Raises UsageError E1001 for an unknown way."""
    if way not in WAYS:
        raise fail("E1001", f"There is no cheat called {way!r}.", cause=f"Known: {', '.join(WAYS)}.")
    honest = worker.workload

    @cache
    def workload(kind: str) -> RunWork:
        run = honest(kind)
        if kind == "train":
            from fallow.workloads import exact

            exact.run_chain = false_chain(way, exact.run_chain)
        return lazy(run) if way == "lazy" else run

    def lane(order: Preload, tell: SendAnswers, log: Callable[[str], None]) -> WorkerLane:
        return LazyLane(order.kind, open_lane(order, tell, log))

    worker.workload = workload
    if way == "lazy":
        worker.open_lane = lane


def main(arguments: list[str]) -> NoReturn:
    """As an honest worker's."""
    cheat(arguments[0])
    worker.main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
