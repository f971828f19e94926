"""What happens in a world, drawn from its seed before it begins: who takes part, who cheats, which jobs are submitted,
and when the network and the machines fail. A plan is plain data, so that a failure can be read."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import msgspec

from fallow.sim.chain import made
from fallow.sim.cheats import EXACT_ONLY, GALLERY
from fallow.wire.local import UNCHECKED, BatchJob, JobSpec, LaneJob, TrainJob
from fallow.wire.tasks import Recipe

RICH_UCR, AMPLE_S = 10_000_000, 300
MODEL, DATA = made(1_000, "model"), made(1_000, "data")
"""The blobs that training starts from."""
KINDS = ("cut", "deaf", "clog", "owner", "full", "jump", "slow")


@dataclass(frozen=True)
class ProviderPlan:
    """One provider. `way` is "honest" or a name from the gallery; equal `account` names share an account; equal `salt`s
    tell the same lies."""

    name: str
    way: str = "honest"
    account: str = ""
    salt: str = ""
    price_ucr: int = 1_000
    speed: int = 20
    numerics: str = "x86"
    breaks: float = 0.0
    stake_ucr: int = 5_000_000
    skew_ms: int = 0


@dataclass(frozen=True)
class JobPlan:
    """One job: when it is submitted and, perhaps, cancelled; how many tasks are sent over its lanes."""

    name: str
    spec: JobSpec
    at_ms: int
    cancel_ms: int = 0
    lane_tasks: int = 0


@dataclass(frozen=True)
class Happening:
    """A fault: `kind` is "crash" (at the `points`-th write or message after `at_ms`), "kill" (at that moment), "cut"
    (off from all others), "deaf" (one way), "clog" (late), "owner" (comes back to the machine), "full" (the disk),
    "jump" (of the clock, back after `for_ms`), "slow" (on the network); `who` are names, it lasts `for_ms`."""

    at_ms: int
    kind: str
    who: tuple[str, ...]
    for_ms: int
    points: int = 0


@dataclass(frozen=True)
class Plan:
    """All of it. `loss` and `late` are probabilities for a message: of ten times the usual delay, and of a connection
    that breaks with it. After `calm_ms` nothing fails any more, though cheats go on cheating."""

    providers: tuple[ProviderPlan, ...]
    jobs: tuple[JobPlan, ...]
    happenings: tuple[Happening, ...] = ()
    delay_ms: int = 20
    loss: float = 0.0
    late: float = 0.0
    calm_ms: int = 60_000
    accuses: bool = False
    """Whether the requester itself cheats: it charges honest providers with false evidence."""
    strangers: tuple[str, ...] = ()
    """What is done by those who take no part (`strangers.py`)."""

    @property
    def cheats(self) -> tuple[str, ...]:
        """The ways of those who cheat."""
        return tuple(provider.way for provider in self.providers if provider.way != "honest")


def draw(seed: int) -> Plan:
    """The plan of a seed. Uses its own chance, so that what happens later does not change what was planned."""
    rng = random.Random(f"plan {seed}")
    cheats = _draw_cheats(rng)
    providers = _draw_providers(rng, cheats)
    calm_ms = rng.choice((10_000, 30_000, 60_000))
    collude = "collude" in cheats
    jobs = tuple(_draw_job(rng, number, calm_ms, collude=collude) for number in range(rng.choice((1, 1, 2, 3))))
    rough = rng.random() < 0.8
    happenings = _draw_happenings(rng, [p.name for p in providers], calm_ms) if rough else ()
    plan = Plan(
        providers=providers,
        jobs=jobs,
        happenings=happenings,
        delay_ms=rng.choice((5, 20, 100)),
        loss=rng.choice((0, 0.002, 0.01)) if rough else 0,
        late=rng.choice((0, 0.05, 0.2)) if rough else 0,
        calm_ms=calm_ms,
        accuses=rng.random() < 0.15,
    )
    return _make_exact(random.Random(f"exact {seed}"), plan)


def _draw_cheats(rng: random.Random) -> tuple[str, ...]:
    names = [*(name for name in GALLERY if name not in EXACT_ONLY), "sybil", "collude"]
    return tuple(rng.sample(names, rng.choice((0, 0, 1, 1, 2))))


def _draw_providers(rng: random.Random, cheats: tuple[str, ...]) -> tuple[ProviderPlan, ...]:
    """Honest ones first: enough of them that a quorum can always be had among them."""
    honest = rng.choice((3, 4, 6)) + (1 if "collude" in cheats else 0)
    ways: list[tuple[str, str, str]] = [("honest", "", "")] * honest
    for name in cheats:
        if name == "sybil":
            ways += [("wrong", "sybil", "sybil")] * 3
        elif name == "collude":
            ways += [("wrong", "", "collude")] * 2
        else:
            ways.append((name, "", ""))
    found: list[ProviderPlan] = []
    for number, (way, account, salt) in enumerate(ways):
        name = f"p{number}"
        price = rng.choice((800, 1_000, 1_500)) if way == "honest" else rng.choice((700, 1_000))
        breaks = rng.choice((0.0, 0.0, 0.1)) if way == "honest" else 0.0
        numerics = "arm" if number == 0 and honest > 3 and rng.random() < 0.3 else "x86"
        speed, skew_ms = rng.choice((10, 20, 60)), rng.choice((0, 0, -4_000, 4_000))
        plan = ProviderPlan(name, way, account or name, salt or name, price, speed, numerics, breaks)
        found.append(replace(plan, skew_ms=skew_ms))
    return tuple(found)


def _draw_job(rng: random.Random, number: int, calm_ms: int, *, collude: bool) -> JobPlan:
    name, at_ms = f"job{number}", rng.randrange(1_000, 15_000)
    quorum = ",quorum=3" if collude else ""
    rate = rng.choice(("0", "0.1", "0.5", "1"))
    verify = f"audit:probation={rng.choice((0, 1, 2))},rate={rate}{quorum}"
    if rng.random() < 0.1:
        verify = UNCHECKED
    kind = rng.choice(("batch", "batch", "train", "lane"))
    workers = rng.choice((1, 2, 3))
    cancel_ms = at_ms + rng.randrange(1, 2 * calm_ms) if rng.random() < 0.2 or kind == "lane" else 0
    budget = RICH_UCR if rng.random() < 0.8 else rng.choice((50, 200, 1_000))
    timeout_s = rng.choice((60, AMPLE_S, AMPLE_S))
    if kind == "train":
        recipe = Recipe(
            "lora", inner_steps=2, sequence_tokens=10, rounds=rng.choice((1, 2, 3, 10)), holdout_sequences=1,
            ahead=rng.choice((0, 1)),
        )  # fmt: skip
        work: TrainJob | BatchJob | LaneJob = TrainJob(MODEL, DATA, recipe, 1_000)
    elif kind == "batch":
        params = tuple(f"{name} {n}".encode() for n in range(rng.choice((1, 4, 12, 20))))
        work = BatchJob("echo", params, (), rng.choice((1, 10, 60)))
    else:
        work = LaneJob("echo", rng.choice((1, 2, 3)))
    spec = JobSpec(work, budget, 0, workers, rng.choice(("price", "speed")), verify, timeout_s, name)
    return JobPlan(name, spec, at_ms, cancel_ms, rng.choice((10, 40)) if kind == "lane" else 0)


def _make_exact(rng: random.Random, plan: Plan) -> Plan:
    """Half of the training jobs become exact ones, with a cheat that only they know; by a chance of its own, so that
    all else stays what it was."""
    found: list[JobPlan] = []
    for job in plan.jobs:
        work = job.spec.work
        if isinstance(work, TrainJob) and rng.random() < 0.5:
            links = rng.choice(("", ",links=0", ",links=1", ",links=5"))
            verify = job.spec.verify + links if job.spec.verify != UNCHECKED else UNCHECKED
            recipe = msgspec.structs.replace(work.recipe, arithmetic="exact", inner_steps=rng.choice((2, 5)))
            work = msgspec.structs.replace(work, recipe=recipe)
            job = replace(job, spec=msgspec.structs.replace(job.spec, work=work, verify=verify))
            if rng.random() < 0.4 and not set(plan.cheats) & set(EXACT_ONLY):
                way, name = rng.choice(EXACT_ONLY), f"p{len(plan.providers)}"
                plan = replace(plan, providers=(*plan.providers, ProviderPlan(name, way, name, name, 700)))
        found.append(job)
    return replace(plan, jobs=tuple(found))


def _draw_happenings(rng: random.Random, providers: list[str], calm_ms: int) -> tuple[Happening, ...]:
    found: list[Happening] = []
    everybody = ["steward", "bank", "directory0", *providers]
    for _ in range(rng.randrange(16)):
        at_ms = rng.randrange(500, min(calm_ms, 40_000))
        for_ms = rng.choice((100, 500, 2_000, 8_000, 25_000))
        kind = rng.choice((*("crash",) * 8, "kill", "kill", *KINDS))
        if kind in ("owner", "full", "jump"):
            found.append(Happening(at_ms, kind, (rng.choice(providers),), for_ms))
        elif kind in ("crash", "kill"):
            who = (rng.choice(("steward", "bank", *rng.sample(providers, 3), "directory0")),)
            found.append(Happening(at_ms, kind, who, for_ms, rng.choice((1, 2, 3, 5, 8, 13, 34))))
        else:
            side = tuple(sorted(rng.sample(everybody, rng.choice((1, 1, 2)))))
            found.append(Happening(at_ms, kind, side, for_ms))
    return tuple(sorted(found, key=lambda happening: happening.at_ms))
