"""Small worlds for the simulator's own tests: plans written by hand, with nothing left to chance but delays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fallow.sim.faults import RICH_UCR, Happening, JobPlan, Plan, ProviderPlan
from fallow.sim.people import digest
from fallow.sim.pool import Pool
from fallow.sim.seals import stand_in
from fallow.sim.services import at_once
from fallow.sim.world import World
from fallow.wire.local import BatchJob, JobSpec, LaneJob, TrainJob
from fallow.wire.tasks import Recipe, TaskOutput

HONEST = tuple(ProviderPlan(f"p{n}", account=f"p{n}", salt=f"p{n}") for n in range(4))
CHECK_ALL = "audit:probation=1,rate=1"


def batch(tasks: int = 6, verify: str = CHECK_ALL, workers: int = 2, units: int = 10) -> JobPlan:
    work = BatchJob("echo", tuple(f"task {n}".encode() for n in range(tasks)), (), units)
    return JobPlan("job", JobSpec(work, RICH_UCR, 0, workers, verify=verify, timeout_s=300), 1_000)


def train(rounds: int = 3, workers: int = 2, verify: str = CHECK_ALL) -> JobPlan:
    recipe = Recipe("lora", inner_steps=2, sequence_tokens=10, rounds=rounds, holdout_sequences=1)
    work = TrainJob(digest("model"), digest("data"), recipe, 1_000)
    return JobPlan("train", JobSpec(work, RICH_UCR, 0, workers, verify=verify, timeout_s=300), 1_000)


def exact(rounds: int = 3, workers: int = 2, verify: str = "audit", *, steps: int = 10, batch: int = 2) -> JobPlan:
    """Training that is committed to link by link."""
    recipe = Recipe(
        "lora", inner_steps=steps, batch_sequences=batch, sequence_tokens=10, rounds=rounds, holdout_sequences=1,
        arithmetic="exact",
    )  # fmt: skip
    work = TrainJob(digest("model"), digest("data"), recipe, 1_000)
    return JobPlan("train", JobSpec(work, RICH_UCR, 0, workers, verify=verify, timeout_s=300), 1_000)


def lane(tasks: int = 20, verify: str = CHECK_ALL, cancel_ms: int = 30_000) -> JobPlan:
    spec = JobSpec(LaneJob("echo", 2), RICH_UCR, 0, 1, verify=verify, timeout_s=300)
    return JobPlan("lane", spec, 1_000, cancel_ms, tasks)


def liar(way: str, name: str = "cheat", price_ucr: int = 100) -> ProviderPlan:
    """Cheap, so that it is always chosen."""
    return ProviderPlan(name, way, name, name, price_ucr)


@dataclass
class Played:
    """A world that was played to its end."""

    pool: Pool
    plan: Plan

    def outputs(self, name: str = "") -> tuple[TaskOutput | None, ...]:
        """Of the first job, or the named one."""
        return self.pool.referee.ended[digest("job", name or self.plan.jobs[0].name)].outputs

    def code(self, name: str = "") -> str:
        return self.pool.referee.ended[digest("job", name or self.plan.jobs[0].name)].code

    def account(self, name: str) -> bytes:
        return next(p.person.account for p in self.pool.providers if p.name == name)

    def earned_ucr(self, name: str) -> int:
        return at_once(self.pool.bank.ledger.balance(self.account(name))).earned_ucr

    def slashed_ucr(self, name: str) -> int:
        rows = self.pool.bank.ledger.rows.values()
        account = self.account(name)
        return sum(getattr(row, "slashed_ucr", 0) for row in rows if getattr(row, "provider", b"") == account)

    def caught(self, name: str) -> bool:
        return self.account(name) in self.pool.referee.caught


def play(
    *jobs: JobPlan, providers: Sequence[ProviderPlan] = HONEST, happenings: Sequence[Happening] = (), seed: int = 1,
    **weather: object,
) -> Played:  # fmt: skip
    """Run to the end; an invariant that breaks raises."""
    cheats = tuple(p.way for p in providers if p.way != "honest")
    plan = Plan(tuple(providers), tuple(jobs), tuple(happenings), calm_ms=20_000, cheats=cheats)
    plan = replace(plan, **weather)  # pyright: ignore[reportArgumentType]
    with stand_in():
        pool = Pool(World(seed), plan)
        pool.run()
    return Played(pool, plan)
