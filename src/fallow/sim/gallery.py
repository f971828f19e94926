"""The gallery of attackers: everybody in it tries one thing on an otherwise honest pool, alone or with another one, and
none of them may gain by it, have an honest party slashed, or keep an honest job from its right result.

`draw` makes such a world of a seed, light enough that hundreds take a minute; `judge` says what must be true of it when
it is over, and how much each of the attackers has won or lost."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fallow.rules.escrow import AccountRow, account_key
from fallow.sim.chain import digest
from fallow.sim.cheats import EXACT_ONLY
from fallow.sim.plan import DATA, MODEL, RICH_UCR, Happening, JobPlan, Plan, ProviderPlan
from fallow.sim.run import describe, simulate
from fallow.sim.town import Town
from fallow.sim.work import honest_output
from fallow.wire.claims import output_hash
from fallow.wire.local import BatchJob, JobSpec, LaneJob, TrainJob
from fallow.wire.tasks import Recipe

CALM_MS = 12_000
PATIENCE_S = 1_500
"""Of the requester: a silent provider may hold a task until its lease ends, several times."""


@dataclass(frozen=True)
class Attacker:
    """What is tried, in words, and by whom: providers with these ways, one lie between them where there are several; a
    stranger; or the requester itself."""

    tries: str
    ways: tuple[str, ...] = ()
    stranger: str = ""
    accuses: bool = False
    account: str = ""


def sells(tries: str, *ways: str, one_account: bool = False) -> Attacker:
    """A provider, or several."""
    return Attacker(tries, ways, account="one" if one_account else "")


def calls(tries: str, name: str) -> Attacker:
    """Somebody who is no provider."""
    return Attacker(tries, stranger=name)


ATTACKERS: dict[str, Attacker] = {
    "lazy": sells("answers at once, mostly without working", "lazy"),
    "wrong": sells("noise of the right form", "wrong"),
    "replay": sells("the output of an earlier task", "replay"),
    "smart": sells("honest until it is trusted", "smart"),
    "sybil": sells("three machines of one account confirm each other", "wrong", "wrong", "wrong", one_account=True),
    "refuse": sells("refuses 49 of 50 tasks and lies on the rest", "refuse"),
    "copy": sells("shows another's signed claim as its own", "copycat"),
    "invent": sells("claims what it was never given, and what it was given again and again", "invent"),
    "two-faced": sells("signs two answers with one number", "equivocate"),
    "overmeter": sells("claims more units than the task has", "overmeter"),
    "glut": sells("claims outputs larger than any disk", "glut"),
    "withhold": sells("claims, and hands out no files", "withhold"),
    "silent": sells("takes tasks and mostly never answers", "silent"),
    "vanish": sells("signs a lease and is never heard of again", "vanish"),
    "hostage": sells("says that it closed the lease, and keeps the escrow locked", "hostage"),
    "forge": sells("brings vouchers that nobody signed, or that others were given", "forge"),
    "skip": sells("leaves out a tenth of its training steps", "skip"),
    "flip": sells("alters one element of one gradient", "flip"),
    "alarm": sells("says of honest trainers that they did not train", "alarm"),
    "accuse": Attacker("a requester charges honest providers with sock puppets as witnesses", accuses=True),
    "half-calls": calls("most of many large messages, and no more", "half-calls"),
    "silence": calls("connections and streams without a word", "silence"),
    "nonsense": calls("bytes that are no message", "nonsense"),
    "empty-purse": calls("a member fills the books with requests that are refused", "empty-purse"),
    "accounts": calls("accounts without a ticket", "accounts"),
    "mint": calls("a member grants itself money, and sends what it does not have", "mint"),
    "escrows": calls("vouchers and closings of other people's escrows", "escrows"),
    "leases": calls("work, pay, ends and events of other people's leases", "leases"),
    "orders": calls("what only its owner may ask of a node", "orders"),
    "offers": calls("offers of machines that do not exist, or that are others'", "offers"),
    "quotes": calls("quotes for all that a machine has, by keys without money", "quotes"),
}
"""By name."""


def draw(seed: int, only: str = "") -> Plan:
    """A small world with one attacker or two, or with `only` that one."""
    rng = random.Random(f"gallery {seed}")
    names = [only] if only else rng.sample(list(ATTACKERS), rng.choice((1, 1, 2)))
    cast = [ATTACKERS[name] for name in names]
    ways = [(way, names[number], one.account) for number, one in enumerate(cast) for way in one.ways]
    colluders = max((len(one.ways) for one in cast), default=0)
    honest = [
        ProviderPlan(f"p{number}", account=f"p{number}", salt=f"p{number}", speed=rng.choice((20, 60)))
        for number in range(4 + (colluders > 1))
    ]
    cheats = [
        ProviderPlan(
            f"cheat{number}", way, account or f"cheat{number}", name,
            rng.choice((700, 900, 1_000)), rng.choice((20, 60)),
        )
        for number, (way, name, account) in enumerate(ways)
    ]  # fmt: skip
    exact = bool({way for way, _, _ in ways} & set(EXACT_ONLY))
    job = _draw_job(rng, exact=exact, quorum=3 if colluders > 1 else 2)
    plan = Plan(
        (*honest, *cheats), (job,), delay_ms=rng.choice((5, 20, 100)), calm_ms=CALM_MS,
        accuses=any(one.accuses for one in cast), strangers=tuple(one.stranger for one in cast if one.stranger),
    )  # fmt: skip
    return replace(plan, happenings=_draw_happenings(rng, [one.name for one in honest]))


def _draw_job(rng: random.Random, *, exact: bool, quorum: int) -> JobPlan:
    kind = "exact" if exact else rng.choice(("batch", "batch", "train", "lane"))
    verify = f"audit:probation={rng.choice((1, 2))},rate={rng.choice(('0.5', '1', '1'))}"
    if quorum > 2:
        verify += f",quorum={quorum}"
    work: TrainJob | BatchJob | LaneJob
    if kind == "batch":
        work = BatchJob("echo", tuple(f"task {n}".encode() for n in range(rng.choice((4, 8)))), (), 10)
    elif kind == "lane":
        work = LaneJob("echo", 2)
    else:
        recipe = Recipe(
            "lora", inner_steps=2, sequence_tokens=10, rounds=2, holdout_sequences=1,
            arithmetic="exact" if exact else "fp32",
        )  # fmt: skip
        work = TrainJob(MODEL, DATA, recipe, 1_000)
        verify += ",links=64" if exact else ""
    spec = JobSpec(work, RICH_UCR, 0, 2, verify=verify, timeout_s=PATIENCE_S)
    return JobPlan("job", spec, 1_000, 30_000 if kind == "lane" else 0, 10 if kind == "lane" else 0)


def _draw_happenings(rng: random.Random, honest: list[str]) -> tuple[Happening, ...]:
    """A machine that dies now and then, in every second world."""
    everybody = ("steward", "bank", "directory0", *honest)
    found = [
        Happening(rng.randrange(2_000, CALM_MS), "crash", (rng.choice(everybody),), 2_000, rng.choice((1, 3, 8)))
        for _ in range(rng.choice((0, 0, 1, 2)))
    ]
    return tuple(sorted(found, key=lambda one: one.at_ms))


# what became of it ----------------------------------------------------------------------------------------------------


def judge(town: Town) -> None:
    """What must be true when such a world is over; tells the referee what is not."""
    for plan in town.plan.jobs:
        _has_its_result(town, plan)
    for name, gain_ucr in gains(town).items():
        if gain_ucr > 0:
            town.referee.wrong(f"{name} has won {gain_ucr} ucr")


def _has_its_result(town: Town, plan: JobPlan) -> None:
    ended = town.referee.ended[digest("job", plan.name)]
    if isinstance(plan.spec.work, LaneJob):
        answers = town.user.answers.get(plan.name, {})
        if len(answers) < plan.lane_tasks:
            town.referee.wrong(f"{plan.name} has {len(answers)} answers of {plan.lane_tasks}")
        return
    if ended.code or None in ended.outputs:
        town.referee.wrong(f"{plan.name} ended with {ended.code} {ended.what}")
    true = {bytes(output_hash(honest_output(spec))) for spec in town.referee.specs.values()}
    if any(output is not None and bytes(output_hash(output)) not in true for output in ended.outputs):
        town.referee.wrong(f"{plan.name} has a wrong result")


def gains(town: Town) -> dict[str, int]:
    """What each attacker has more than it came with and was paid for right work, by its name in the gallery; less than
    zero for one that lost."""
    found = dict.fromkeys(town.plan.strangers, 0)
    for name, account, brought_ucr in _purses(town):
        row = town.ledger.rows.get(account_key(account))
        owned_ucr = row.owned_ucr if isinstance(row, AccountRow) else 0
        found[name] = found.get(name, 0) + owned_ucr - brought_ucr - _honest_pay(town, account)
    if town.plan.accuses:
        honest = [host.identity.account for host in town.providers if host.ways.honest]
        found["accuse"] = sum(row.slashed_ucr for row in town.escrows() if row.provider in honest)
    return found


def _purses(town: Town) -> Iterator[tuple[str, bytes, int]]:
    """Name, account and what is in it at first, of every attacker that has one; machines of one account once."""
    brought: dict[tuple[str, bytes], int] = {}
    for plan in town.plan.providers:
        if plan.way != "honest":
            key = plan.salt, town.hosts[plan.name].identity.account
            brought[key] = brought.get(key, 0) + plan.stake_ucr
    yield from ((name, account, ucr) for (name, account), ucr in brought.items())
    yield from ((one.name, one.identity.account, one.brought_ucr) for one in town.strangers)


def _honest_pay(town: Town, account: bytes) -> int:
    """What it was paid for answers that are right. Of lanes nobody keeps the answers: whatever was final counts."""
    earned: dict[bytes, int] = {}
    for (lease, _), receipt in town.referee.receipts.items():
        if receipt.terms.provider == account and (
            receipt.spec is None or receipt.output == honest_output(receipt.spec)
        ):
            earned[lease] = earned.get(lease, 0) + receipt.paid_ucr
    paid = {row.lease: row.paid_ucr for row in town.escrows()}
    return sum(min(paid.get(lease, 0), right_ucr) for lease, right_ucr in earned.items())


# the command ----------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Play worlds, say which failed, and what each attacker won in its best and lost in its worst; -> the exit
    code."""
    parser = argparse.ArgumentParser(prog="python -m fallow.sim.gallery", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--attacker", default="", choices=["", *ATTACKERS], help="this one alone")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args(arguments)
    failed, told = 0, dict[str, list[int]]()
    for seed in range(options.seed, options.seed + options.count):
        outcome = simulate(seed, plan=draw(seed, options.attacker), judge=judge)
        lines = outcome.town.lines if options.trace else []
        if outcome.failure:
            failed += 1
            only = f" --attacker {options.attacker}" if options.attacker else ""
            again = f"Again: python -m fallow.sim.gallery --seed {seed}{only} --trace"
            lines = [*lines, f"{', '.join(cast_of(outcome.plan))}: {describe(outcome)}", again]
        for name, gain_ucr in gains(outcome.town).items():
            told.setdefault(name, []).append(gain_ucr)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    for name, won in sorted(told.items()):
        summary = {"attacker": name, "worlds": len(won), "most_won_ucr": max(won), "lost_ucr": -sum(won)}
        sys.stdout.write(json.dumps(summary) + "\n")
    sys.stdout.write(f"{options.count} seeds, {failed} failed\n")
    return 1 if failed else 0


def cast_of(plan: Plan) -> list[str]:
    """The attackers of a world, by their names."""
    found = [one.salt for one in plan.providers if one.way != "honest"]
    return list(dict.fromkeys([*found, *plan.strangers, *(["accuse"] if plan.accuses else [])]))


if __name__ == "__main__":
    raise SystemExit(main())
