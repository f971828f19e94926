"""All kinds of work, by name."""

from __future__ import annotations

from fallow.errors import fail
from fallow.kinds.echo import Echo
from fallow.kinds.generate.kind import GenerateKind
from fallow.kinds.kind import Kind
from fallow.kinds.lane import LaneSide
from fallow.kinds.spin import Spin
from fallow.kinds.train.kind import Train
from fallow.kinds.wasm.kind import Wasm
from fallow.wire.tasks import TaskOutput, TaskSpec

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Echo(), Spin(), Train(), GenerateKind(), Wasm())}


def kind_named(name: str) -> Kind:
    """The kind called `name`. Raises UsageError E2001, which names it, when there is none."""
    found = KINDS.get(name)
    if found is None:
        raise fail("E2001", f"No kind of work is called {name[:40]!r}.", cause=f"Known: {', '.join(KINDS)}.")
    return found


def metered(task: TaskSpec, output: TaskOutput) -> int:
    """What a finished task costs in units; at most what it was metered at. Raises nothing, whatever its provider
    wrote."""
    kind = KINDS.get(task.kind)
    return task.units if kind is None else min(kind.metered(task, output), task.units)


def lane_side(name: str) -> LaneSide:
    """What the kind called `name` says of its lanes. Raises UsageError E2001 where there is no such kind, or it has
    none."""
    found = kind_named(name).lane
    if found is None:
        raise fail("E2001", f"{name} has no lanes.")
    return found
