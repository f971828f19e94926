"""Small worlds for the simulator's own tests: plans written by hand, with nothing left to chance but delays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fallow.kinds.train.tasks import Recipe
from fallow.sim.chain import digest
from fallow.sim.plan import DATA, MODEL, RICH_UCR, Happening, JobPlan, Plan, ProviderPlan
from fallow.sim.run import simulate
from fallow.sim.town import Town
from fallow.wire.local import BatchJob, JobSpec, LaneJob, TrainJob
from fallow.wire.tasks import TaskOutput

HONEST = tuple(ProviderPlan(f"p{n}", account=f"p{n}", salt=f"p{n}") for n in range(4))
CHECK_ALL = "audit:probation=1,rate=1"


def batch(tasks: int = 6, verify: str = CHECK_ALL, workers: int = 2, units: int = 10) -> JobPlan:
    work = BatchJob("echo", tuple(f"task {n}".encode() for n in range(tasks)), (), units)
    return JobPlan("job", JobSpec(work, RICH_UCR, 0, workers, verify=verify, timeout_s=300), 1_000)


def train(rounds: int = 3, workers: int = 2, verify: str = CHECK_ALL) -> JobPlan:
    recipe = Recipe("lora", inner_steps=2, sequence_tokens=10, rounds=rounds, holdout_sequences=1)
    work = TrainJob(MODEL, DATA, recipe, 1_000)
    return JobPlan("train", JobSpec(work, RICH_UCR, 0, workers, verify=verify, timeout_s=300), 1_000)


def exact(rounds: int = 3, workers: int = 2, verify: str = "audit", *, steps: int = 10, batch: int = 2) -> JobPlan:
    """Training that is committed to link by link."""
    recipe = Recipe(
        "lora", inner_steps=steps, batch_sequences=batch, sequence_tokens=10, rounds=rounds, holdout_sequences=1,
        arithmetic="exact",
    )  # fmt: skip
    work = TrainJob(MODEL, DATA, recipe, 1_000)
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

    town: Town
    plan: Plan

    def outputs(self, name: str = "") -> tuple[TaskOutput | None, ...]:
        """Of the first job, or the named one."""
        return self.town.referee.ended[digest("job", name or self.plan.jobs[0].name)].outputs

    def code(self, name: str = "") -> str:
        return self.town.referee.ended[digest("job", name or self.plan.jobs[0].name)].code

    def account(self, name: str) -> bytes:
        return self.town.hosts[name].identity.account

    def paid_ucr(self, name: str) -> int:
        return sum(row.paid_ucr for row in self.town.escrows() if row.provider == self.account(name))

    def slashed_ucr(self, name: str) -> int:
        """Taken, or locked until it has answered."""
        return sum(
            row.slashed_ucr + row.charged_ucr for row in self.town.escrows() if row.provider == self.account(name)
        )

    def caught(self, name: str) -> bool:
        return self.account(name) in self.town.referee.caught


def play(
    *jobs: JobPlan, providers: Sequence[ProviderPlan] = HONEST, happenings: Sequence[Happening] = (), seed: int = 1,
    **weather: object,
) -> Played:  # fmt: skip
    """Run to the end; an invariant that breaks raises."""
    plan = Plan(tuple(providers), tuple(jobs), tuple(happenings), calm_ms=20_000)
    plan = replace(plan, **weather)  # pyright: ignore[reportArgumentType]
    outcome = simulate(seed, plan=plan)
    assert not outcome.failure, outcome.failure
    return Played(outcome.town, plan)
