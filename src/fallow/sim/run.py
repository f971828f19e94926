"""`python -m fallow.sim.run --seed N [--count N] [--bug NAME] [--trace] [--keep 0,3] [--shrink]`: run simulated worlds,
say what happened, and on failure how to see it again. `--keep` leaves of the plan's faults and cheats only those with
these numbers; `--shrink` looks for the fewest that fail."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import structlog

from fallow.node.provider import role as provider_role
from fallow.node.steward import role as steward_role
from fallow.sim.bugs import BUGS, planted
from fallow.sim.host import LIFE
from fallow.sim.loop import Stuck, VirtualLoop, play
from fallow.sim.plan import Plan, draw
from fallow.sim.referee import Violation
from fallow.sim.seals import stand_in
from fallow.sim.town import Town


class WorldResult(NamedTuple):
    """What became of a world. `failure` is "" when all was well."""

    seed: int
    plan: Plan
    town: Town
    failure: str

    @property
    def trace(self) -> str:
        """The hash of all that happened."""
        return self.town.trace


@contextmanager
def _listening(town: list[Town]) -> Iterator[None]:
    """While open, nothing is logged, but that a node logs an error of its own (not a peer's) is a finding."""

    def hear(_logger: object, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        host, life = LIFE.get((None, 0))
        if town and host is not None and host.lives(life):
            town[0].referee.wrong(
                f"{host.name} had an error of its own: {event.get('event')} {event.get('exc_info')!r}"
            )
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[hear], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        with warnings.catch_warnings():  # whoever dies leaves something that was never awaited
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        structlog.configure(**before)


@contextmanager
def _often() -> Iterator[None]:
    """While open, nodes make snapshots long before they would in production."""
    with patch.object(steward_role, "COMPACT_BYTES", 30_000), patch.object(provider_role, "SNAPSHOT_EVERY", 40):
        yield


def simulate(
    seed: int, bug: str = "", plan: Plan | None = None, judge: Callable[[Town], None] | None = None
) -> WorldResult:
    """Run the world of `seed` (or `plan` with its chances), with a planted `bug` when asked for; `judge` tells its
    referee what more is wrong when it is over. KeyError for a bug that is not there."""
    drawn, towns, failure = plan or draw(seed), list[Town](), ""

    async def main(loop: VirtualLoop) -> None:
        towns.append(Town(loop, seed, drawn))
        spoil(towns[0])
        await towns[0].run()
        if judge is not None:
            judge(towns[0])
            towns[0].referee.look()

    with stand_in(), planted(bug) as spoil, _listening(towns), _often():
        try:
            play(main)
        except Violation as violation:
            failure = str(violation)
        except Stuck as stuck:
            failure = str(stuck) or "everything waits for ever"
        except Exception as error:  # noqa: BLE001 - whatever is raised is a finding, and the task ends here
            failure = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
        finally:
            for town in towns:
                town.close()
    return WorldResult(seed, drawn, towns[0], failure)


# fewer faults, the same failure ---------------------------------------------------------------------------------------


def kept(plan: Plan, keep: set[int]) -> Plan:
    """The plan with only some of its faults, cheats and jobs: those with these numbers, counted through in this
    order."""
    faults, cheats = len(plan.happenings), [p.name for p in plan.providers if p.way != "honest"]
    gone = {name for number, name in enumerate(cheats, faults) if number not in keep}
    first = faults + len(cheats)
    happenings = tuple(
        one for number, one in enumerate(plan.happenings) if number in keep and not gone.intersection(one.who)
    )
    providers = tuple(provider for provider in plan.providers if provider.name not in gone)
    jobs = tuple(job for number, job in enumerate(plan.jobs, first) if number in keep)
    return replace(plan, happenings=happenings, providers=providers, jobs=jobs)


def everything(plan: Plan) -> set[int]:
    """The numbers of all that `kept` can leave out."""
    return set(range(len(plan.happenings) + len(plan.cheats) + len(plan.jobs)))


def shrink(seed: int, bug: str = "") -> tuple[set[int], WorldResult]:
    """-> the numbers that are left of a failing world when nothing more can be left out, and that world."""
    plan = draw(seed)
    keep, found = everything(plan), simulate(seed, bug)
    changed = bool(found.failure)
    while changed:
        changed = False
        for number in sorted(keep):
            fewer = simulate(seed, bug, kept(plan, keep - {number}))
            if fewer.failure:
                keep, found, changed = keep - {number}, fewer, True
    return keep, found


def replay_command(seed: int, bug: str = "", keep: set[int] | None = None) -> str:
    """What to type to see it again."""
    which = "" if keep is None else f" --keep {','.join(map(str, sorted(keep))) or 'none'}"
    return f"python -m fallow.sim.run --seed {seed}{f' --bug {bug}' if bug else ''}{which} --trace"


def describe(outcome: WorldResult) -> str:
    """A few lines for people."""
    plan, town = outcome.plan, outcome.town
    who = f"{len(plan.providers)} providers ({', '.join(plan.cheats) or 'no cheats'})"
    length = f"{town.network.pieces} messages, {town.loop.time():.0f} virtual s"
    lines = [f"seed {outcome.seed}: {who}, {len(plan.happenings)} faults, {length}"]
    for happening in plan.happenings:
        lines.append(f"  {happening.at_ms:>6} ms {happening.kind} {' '.join(happening.who)} for {happening.for_ms} ms")
    for name, ended in town.referee.ended.items():
        done = sum(output is not None for output in ended.outputs)
        text = f"{ended.code} {ended.what}" if ended.code else "done"
        lines.append(f"  job {name.hex()[:8]}: {text}; {done} of {len(ended.outputs)} outputs")
    paid = sum(row.paid_ucr for row in town.escrows())
    lines.append(f"  {len(town.referee.receipts)} receipts, {paid} ucr paid, {len(town.referee.caught)} caught")
    lines.append(f"  trace {outcome.trace[:16]}")
    if outcome.failure:
        lines.append(f"FAILED: {outcome.failure}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command; -> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fallow.sim.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--bug", default="", choices=["", *BUGS], help="a bug to plant, to see it caught")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--keep", default="", help="numbers of the faults, cheats and jobs to keep; 'none' for none")
    parser.add_argument("--shrink", action="store_true", help="leave out what a failure does not need")
    options = parser.parse_args(arguments)
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        keep = {int(number) for number in options.keep.split(",") if number.isdecimal()} if options.keep else None
        outcome = simulate(seed, options.bug, kept(draw(seed), keep) if keep is not None else None)
        if outcome.failure and options.shrink:
            keep, outcome = shrink(seed, options.bug)
        text = [*(outcome.town.lines if options.trace else ()), describe(outcome)]
        if outcome.failure:
            failed += 1
            text.append(f"Again: {replay_command(seed, options.bug, keep)}")
        if outcome.failure or options.trace or options.count == 1:
            sys.stdout.write("\n".join(text) + "\n")
    if options.count > 1:
        sys.stdout.write(f"{options.count} seeds, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
