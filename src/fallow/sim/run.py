"""`python -m fallow.sim.run --seed N [--count N] [--bug NAME] [--trace]`: run simulated worlds, say what happened, and
on failure how to see it again."""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import NamedTuple

from fallow.sim.bugs import BUGS, planted
from fallow.sim.faults import Plan, draw
from fallow.sim.pool import Pool
from fallow.sim.seals import stand_in
from fallow.sim.world import Violation, World


class Outcome(NamedTuple):
    """What became of a world. `failure` is "" when all was well."""

    seed: int
    plan: Plan
    pool: Pool
    failure: str

    @property
    def trace(self) -> str:
        """The hash of all that happened."""
        return self.pool.world.trace


def simulate(seed: int, bug: str = "", *, keep_lines: bool = False) -> Outcome:
    """Run the world of `seed`, with a planted `bug` when asked for. KeyError for a bug that is not there."""
    plan = draw(seed)
    with stand_in(), planted(bug) as spoil:
        pool = Pool(World(seed, keep_lines=keep_lines), plan)
        spoil(pool)
        failure = ""
        try:
            pool.run()
        except Violation as violation:
            failure = str(violation)
        except Exception as error:  # noqa: BLE001 - whatever the rules raise is a finding, and the task ends here
            failure = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
    return Outcome(seed, plan, pool, failure)


def replay_command(seed: int, bug: str = "") -> str:
    """What to type to see it again."""
    return f"python -m fallow.sim.run --seed {seed}{f' --bug {bug}' if bug else ''} --trace"


def describe(outcome: Outcome) -> str:
    """A few lines for people."""
    plan, pool, referee = outcome.plan, outcome.pool, outcome.pool.referee
    who = f"{len(plan.providers)} providers ({', '.join(plan.cheats) or 'no cheats'})"
    length = f"{pool.world.steps} steps, {pool.world.elapsed_ms // 1000} virtual s"
    lines = [f"seed {outcome.seed}: {who}, {len(plan.happenings)} faults, {length}"]
    for happening in plan.happenings:
        lines.append(f"  {happening.at_ms:>6} ms {happening.kind} {' '.join(happening.who)} for {happening.for_ms} ms")
    for name, ended in referee.ended.items():
        done = sum(output is not None for output in ended.outputs)
        outcome_text = f"{ended.code} {ended.what}" if ended.code else "done"
        lines.append(f"  job {name.hex()[:8]}: {outcome_text}; {done} of {len(ended.outputs)} outputs")
    paid = sum(move.amount_ucr for move in pool.bank.ledger.journal if move.debit.place.name == "ESCROW")
    lines.append(f"  {len(referee.receipts)} receipts, {paid} ucr out of escrow, {len(referee.caught)} caught")
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
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        outcome = simulate(seed, options.bug, keep_lines=options.trace)
        text = [*outcome.pool.world.lines, describe(outcome)]
        if outcome.failure:
            failed += 1
            text.append(f"Again: {replay_command(seed, options.bug)}")
        if outcome.failure or options.trace or options.count == 1:
            sys.stdout.write("\n".join(text) + "\n")
    if options.count > 1:
        sys.stdout.write(f"{options.count} seeds, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
