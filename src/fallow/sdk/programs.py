"""From a program of one's own, its inputs and arguments to the runs of a job."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fallow.errors import fail
from fallow.kinds.guest import Guest, GuestRun
from fallow.kinds.kind import Kind
from fallow.kinds.registry import kind_named
from fallow.wire import local
from fallow.wire.tasks import Part

HERE = "{}"
"""Stands in arguments for where the run's input lies."""
IMPORTS_AT_A_TIME = 16
AnyPath = str | os.PathLike[str]


class Taker(Protocol):
    """The part of `AsyncFallow` that takes files in."""

    async def import_path(self, path: AnyPath) -> local.Imported: ...


class RunPlan(NamedTuple):
    """What is to be run: once for each of `inputs`, which is its standard input or, where {} stands in `args`, a file
    that it is told the place of; or once for each list of arguments in `lines`, after `args`. `files` all runs see."""

    args: Sequence[str] = ()
    inputs: Sequence[AnyPath] = ()
    lines: Sequence[Sequence[str]] = ()
    files: Sequence[AnyPath] = ()
    environment: Mapping[str, str] = {}


def guest_of(workload: str) -> tuple[Kind, Guest]:
    """The kind called so, and its side that runs programs. Raises UsageError E2001 where there is none."""
    kind = kind_named(workload)
    if kind.guest is None:
        raise fail("E2001", f"{workload} runs no programs of your own.")
    return kind, kind.guest


def settings_of(kind: Kind, chosen: Mapping[str, int]) -> dict[str, int]:
    """All settings of a kind. Raises UsageError E2001 for one that it does not have."""
    known = {one.name: one.default for one in kind.settings}
    if unknown := sorted(chosen.keys() - known.keys()):
        raise fail("E2001", f"{kind.name} has no setting {unknown[0]!r}.", cause=f"Known: {', '.join(known)}.")
    return known | dict(chosen)


def read_program(path: AnyPath) -> bytes:
    """The program itself. Raises UsageError E2003."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise fail("E2003", f"{path} cannot be read: {error.strerror}.") from error


class Runs(NamedTuple):
    """What a job of runs is made of: the parameters of each, what all get, and the most units that one may be."""

    params: tuple[bytes, ...]
    inputs: tuple[Part, ...]
    units: int


async def runs_of(taker: Taker, workload: str, program: AnyPath, plan: RunPlan, settings: Mapping[str, int]) -> Runs:
    """Look at the program, take in all files, and say what is to be done. Raises what `Guest.inspect` and
    `Guest.params` do, before a file is taken in."""
    kind, guest = guest_of(workload)
    guest.inspect(await asyncio.to_thread(read_program, program), settings)
    shared_names, names = [Path(path).name for path in plan.files], _names(plan.inputs)
    for path in (*plan.files, *plan.inputs):
        if not Path(path).expanduser().exists():
            raise fail("E2003", f"{path} does not exist.")
    _params(guest, plan, [_blank(guest, name) for name in names], settings)
    own = await _take(taker, guest, dict(zip(names, plan.inputs, strict=True)))
    shared = await _take(taker, guest, dict(zip(shared_names, plan.files, strict=True)))
    taken = await taker.import_path(program)
    params = _params(guest, plan, own, settings)
    inputs = (Part(guest.module, taken.tree, taken.size_bytes), *shared)
    clash = {part.name for part in own} & {part.name for part in shared}
    if clash or len({part.name for part in shared}) < len(shared):
        name = next(iter(clash or {part.name for part in shared})).partition("/")[2]
        raise fail("E2001", f"Two files that a run would see are called {name!r}.", next_step="Rename one.")
    return Runs(params, inputs, max(map(kind.units, params)))


def _names(inputs: Sequence[AnyPath]) -> list[str]:
    """What each input is called: as its file is, with a number in front where two are called so."""
    names = [Path(path).name for path in inputs]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f"{number}-{name}" for number, name in enumerate(names)]


def _blank(guest: Guest, name: str) -> Part:
    return Part(f"{guest.folder}/{name}", bytes(32), 0)


async def _take(taker: Taker, guest: Guest, paths: Mapping[str, AnyPath]) -> list[Part]:
    async def one(name: str, path: AnyPath) -> Part:
        async with places:
            taken = await taker.import_path(path)
        return Part(f"{guest.folder}/{name}", taken.tree, taken.size_bytes)

    places = asyncio.Semaphore(IMPORTS_AT_A_TIME)
    return list(await asyncio.gather(*(one(name, path) for name, path in paths.items())))


def _params(guest: Guest, plan: RunPlan, own: Sequence[Part], settings: Mapping[str, int]) -> tuple[bytes, ...]:
    environment = tuple(plan.environment.items())
    if own and plan.lines:
        raise fail("E2001", "Runs are either for inputs or for lines of arguments, not for both.")
    if not own:
        runs = [GuestRun("", (*plan.args, *line), environment) for line in plan.lines or [()]]
    else:
        told = any(HERE in word for word in plan.args)
        runs = [
            GuestRun(
                part.name.partition("/")[2], tuple(word.replace(HERE, f"/{part.name}") for word in plan.args),
                environment, (part,), "" if told else part.name,
            )
            for part in own
        ]  # fmt: skip
    return tuple(guest.params(run, settings) for run in runs)
