"""Providers that lie on purpose, for tests and demos: a network that never met a cheat has proved nothing.

`lazy` does less work than it claims, in ways that give well-formed answers: one inner step instead of all of them, one
token instead of the answer, nothing instead of the echo. `skip` and `flip` are lies in exact training, which its
worker is told to make (`workloads/exact.py`): a tenth of the steps left out, one element of one gradient altered.
Nothing here helps a real cheat, who would change the code.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate
from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneTask
from fallow.wire.tasks import MAX_PARAMS_BYTES, TaskSpec

Shirk = Callable[[str, bytes], bytes]
"""From a kind of work and its parameters to the parameters of less work."""


IN_WORKER = ("skip", "flip")


def shirk_of(name: str) -> Shirk | None:
    """The cheat called `name`, None for "" and for those that live in the worker. Raises UsageError E1001 for an
    unknown one."""
    if not name:
        return None
    if name not in ("lazy", *IN_WORKER):
        raise fail("E1001", f"There is no cheat called {name!r}.", cause="Known: lazy, skip, flip.")
    return less_work if name == "lazy" else None


def worker_cheat(name: str) -> str:
    """What the worker is told of the cheat called `name`."""
    return name


def less_work(kind: str, params: bytes) -> bytes:
    """Parameters for less of the same work; unchanged where there is nothing to save."""
    try:
        if kind == "train":
            return _less_training(params)
        if kind == "generate":
            asked = decode(Generate, params, MAX_PARAMS_BYTES)
            return encode(msgspec.structs.replace(asked, max_tokens=min(asked.max_tokens, 1)))
    except FallowError:
        return params
    return b"1" if kind == "spin" else b""


def _less_training(params: bytes) -> bytes:
    found = decode(TrainParams, params, MAX_PARAMS_BYTES)
    if not isinstance(found, TrainRound):
        return params
    if found.recipe.exact:  # its worker leaves the steps out, so that the claim has the right form
        return params
    recipe = msgspec.structs.replace(found.recipe, inner_steps=min(found.recipe.inner_steps, 1))
    return encode(msgspec.structs.replace(found, recipe=recipe))


def shirked_task(shirk: Shirk | None, spec: TaskSpec) -> TaskSpec:
    """The task that is really done in the place of `spec`."""
    return spec if shirk is None else msgspec.structs.replace(spec, params=shirk(spec.kind, spec.params))


def shirked_lane(shirk: Shirk | None, kind: str, task: LaneTask) -> LaneTask:
    """The lane task that is really done in the place of `task`."""
    return task if shirk is None else LaneTask(task.number, shirk(kind, task.params), task.seed, task.stream)
