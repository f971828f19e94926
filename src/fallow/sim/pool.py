"""A whole pool in one simulated world: bank, directories, steward, providers and a user, made from a plan and run to
the end. Deciding is done by the real rules; everything else is virtual."""

from __future__ import annotations

import itertools
from typing import TypeVar

from fallow.rules import trust
from fallow.rules.escrow import EscrowRow, Terms
from fallow.rules.placement import Capacity
from fallow.rules.provider import events as p
from fallow.rules.steward.events import Timing
from fallow.sim.accuser import Accuser
from fallow.sim.cheats import GALLERY, Copycat, Ways
from fallow.sim.crash import Process
from fallow.sim.faults import AMPLE_S, RICH_UCR, Happening, JobPlan, Plan, ProviderPlan
from fallow.sim.invariants import Referee
from fallow.sim.network import Network
from fallow.sim.people import Person, digest
from fallow.sim.provider import Provider
from fallow.sim.services import Bank, Directory
from fallow.sim.steward import Cancel, LaneAsk, Steward, Submit
from fallow.sim.world import Violation, World
from fallow.units import GIB
from fallow.wire.messages import Claimed, Message, Ok

P = TypeVar("P", bound=Process)

PURSE_UCR = 50_000_000
LOST_MS = 15_000
LIMIT_MS = 2_400_000
"""Long after every deadline in these worlds: what has not ended by then never ends."""

# Patience outlasts every fault of these worlds: all providers can be out of reach for as long at the wrong moment.
TIMING = Timing(
    patience=60_000, search_every=3_000, quote_within=6_000, lost_after=LOST_MS, lease_length=240_000,
    audit_within=20_000, round_within=30_000,
)  # fmt: skip
POLICY = p.Policy(
    quote_ms=10_000, escrow_ms=20_000, grace_ms=20_000, settle_ms=2_000, redeem_ms=15_000, keep_ms=60_000
)  # fmt: skip


class User(Process):
    """The owner of the jobs: says each thing until it is heard, once."""

    jobs: tuple[JobPlan, ...] = ()
    steward: bytes = b""
    submitted: set[str]

    def on_start(self) -> None:
        """Plan the day."""
        self.submitted = set()
        for job in self.jobs:
            name = digest("job", job.name)
            self.later(job.at_ms, lambda job=job, name=name: self._say(Submit(name, job.spec), job.name))
            if job.cancel_ms:
                self.later(job.cancel_ms, lambda name=name: self._say(Cancel(name), ""))
            for number in range(job.lane_tasks):
                self.later(job.at_ms + 2_000 + 500 * number, lambda name=name, n=number: self._lane(name, n, 20))

    def _say(self, request: Message, done: str) -> None:
        def heard(answer: Message | None) -> None:
            if answer is None:
                self._say(request, done)
            elif done:
                self.submitted.add(done)

        self.call(self.steward, request, 2_000, heard)

    def _lane(self, job: bytes, number: int, tries: int) -> None:
        def heard(answer: Message | None) -> None:
            if not isinstance(answer, Ok) and tries > 1:
                self.later(1_000, lambda: self._lane(job, number, tries - 1))

        self.call(self.steward, LaneAsk(job, b"%d" % number, number), 2_000, heard)


class Pool:
    """Everybody. `run` plays the plan to its end and raises Violation when an invariant breaks or something never
    ends."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.network = Network(world)
        self.referee = Referee(world)
        self.by_name: dict[str, Process] = {}
        self.shown: list[Claimed] = []
        bank = self._person("bank", "")
        terms = Terms(bank.account, bank.account, unbonding_ms=120_000, grace_ms=10_000, hold_ms=60_000)
        self.bank = self._add(Bank(world, self.network, bank, terms))
        self.directories = [self._add(self._directory(f"directory{n}")) for n in range(2)]
        person = self._person("steward", "")
        self.steward = self._add(Steward(world, self.network, person, TIMING, self.bank.node, self.referee))
        self.steward.directories = [directory.node for directory in self.directories]
        self.steward.echoes = plan.echoes
        if plan.accuses:
            self.steward.accuse = Accuser(self.steward).accuse
        self.bank.welcome(person, PURSE_UCR, 0)
        self.providers = [self._provider(each) for each in plan.providers]
        self.user = self._add(User(world, self.network, "user", self._person("user", "").node))
        self.user.jobs, self.user.steward = plan.jobs, self.steward.node
        self._brief_referee()
        self._set_weather()

    def _add(self, process: P) -> P:
        self.by_name[process.name] = process
        return process

    def _person(self, name: str, account: str) -> Person:
        bank = self.bank.person.account if "bank" in self.by_name else b""
        person = Person(name, account, bank, self.referee.signing)
        self.referee.names[person.account] = account or name
        self.referee.names[person.node] = name
        return person

    def _directory(self, name: str) -> Directory:
        return Directory(self.world, self.network, name, self._person(name, "").node)

    def _provider(self, plan: ProviderPlan) -> Provider:
        person = self._person(plan.name, plan.account)
        capacity = Capacity(4_000, 64 * GIB, 1 << 40)
        rates: dict[str, int] = dict.fromkeys(("echo", "train"), plan.price_ucr)
        terms = p.Terms(
            person.account, person.node, self.bank.person.account, capacity, plan.numerics, rates, POLICY, exact=True
        )  # fmt: skip
        ways = self._ways(plan)
        ways.breaks = plan.breaks
        provider = self._add(Provider(self.world, self.network, person, terms, plan.speed, ways, self.referee))
        provider.bank, provider.directories = self.bank.node, [d.node for d in self.directories]
        provider.shown, provider.stake_ucr, provider.skew_ms = self.shown, plan.stake_ucr, plan.skew_ms
        self.bank.welcome(person, plan.stake_ucr, plan.stake_ucr)
        if not ways.honest:
            self.referee.cheats.add(person.account)
        if plan.way == "withhold":
            self.referee.hiding.add(person.node)
        return provider

    def _ways(self, plan: ProviderPlan) -> Ways:
        if plan.way == "honest":
            return Ways()
        if plan.way == "copycat":
            return Copycat(plan.salt, self.shown)
        return GALLERY[plan.way](plan.salt)

    def _brief_referee(self) -> None:
        referee = self.referee
        referee.ledger, referee.minted_ucr = self.bank.ledger, self.bank.minted_ucr
        referee.lost_after_ms = LOST_MS
        referee.holders = {holder.node: holder for holder in (self.steward, *self.providers)}
        for job in self.plan.jobs:
            name = digest("job", job.name)
            policy = trust.parse_policy(job.spec.verify)
            assert isinstance(policy, trust.Policy)
            referee.budgets[name], referee.policies[name] = job.spec.budget_ucr, policy

    # faults -----------------------------------------------------------------------------------------------------------

    def _set_weather(self) -> None:
        weather, plan = self.network.weather, self.plan
        weather.delay_mean = plan.delay_mean
        weather.loss, weather.twice, weather.reorder = plan.loss, plan.twice, plan.reorder
        for happening in plan.happenings:
            self.world.after(happening.at_ms, lambda happening=happening: self._happen(happening))
        self.world.after(plan.calm_ms, self._calm)

    def _calm(self) -> None:
        self.world.note("calm")
        self.network.weather.clear_up()
        for process in self.by_name.values():
            process.doomed_in = 0

    def _happen(self, happening: Happening) -> None:
        self.world.note(f"{happening.kind} {' '.join(happening.who)} for {happening.for_ms} ms")
        process = self.by_name[happening.who[0]]
        if happening.kind == "owner" and isinstance(process, Provider):
            process.owner_returns(happening.for_ms)
            return
        if happening.kind in ("crash", "kill"):
            if happening.kind == "crash" and process.up:
                process.doom(happening.points, happening.for_ms)
            else:
                process.kill(happening.for_ms)
            return
        inside = [self.by_name[name].node for name in happening.who]
        outside = [p.node for p in self.by_name.values() if p.node not in inside and p is not self.user]
        pairs = set(itertools.product(inside, outside))
        if happening.kind == "cut":
            pairs |= {(b, a) for a, b in pairs}
        weather = self.network.weather
        if happening.kind == "clog":
            weather.clogs |= dict.fromkeys(pairs, self.world.now_ms + happening.for_ms)
            return
        weather.cuts |= pairs
        self.world.after(happening.for_ms, lambda: weather.cuts.difference_update(pairs))

    # the end ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play to the end. Raises Violation."""
        for process in (self.bank, *self.directories, *self.providers, self.steward, self.user):
            process.start()
        if not self.world.run(self.over, LIMIT_MS):
            raise Violation(f"seed {self.world.seed}: {self._unfinished()}")
        self.referee.books()
        self.referee.settled()
        self._easy_ones_are_done()

    def over(self) -> bool:
        """Whether nothing is left to happen: all is calm, every job has ended and every escrow is resolved."""
        if self.world.elapsed_ms < self.plan.calm_ms or not self.steward.up:
            return False
        jobs = self.steward.state.jobs
        if any(digest("job", job.name) not in self.referee.ended for job in self.plan.jobs):
            return False
        if any(job.live or not job.over for job in jobs.values()):
            return False
        return not any(isinstance(row, EscrowRow) and not row.closed_ms for row in self.bank.ledger.rows.values())

    def _easy_ones_are_done(self) -> None:
        """Where nobody cheats and money and time were ample, no fault is an excuse for not having the result."""
        for plan in () if self.plan.cheats or self.plan.accuses else self.plan.jobs:
            ended = self.referee.ended[digest("job", plan.name)]
            ample = plan.spec.budget_ucr >= RICH_UCR and plan.spec.timeout_s >= AMPLE_S and not plan.cancel_ms
            if ample and (ended.code or None in ended.outputs):
                raise self.referee.wrong(f"{plan.name} ended with {ended.code} {ended.what}, although nobody cheats")

    def _unfinished(self) -> str:
        """What never ended, in words."""
        found: list[str] = []
        jobs = self.steward.state.jobs
        for plan in self.plan.jobs:
            job = jobs.get(digest("job", plan.name))
            if job is None:
                found.append(f"{plan.name} was taken in and is not known any more")
            elif job.live or not job.over:
                seats = [f"{self.referee.name(job.seats[n].node)} {job.seats[n].stage.name}" for n in job.live]
                found.append(f"{plan.name} is {job.phase.value}, leases: {', '.join(seats) or 'none'}")
        for row in self.bank.ledger.rows.values():
            if isinstance(row, EscrowRow) and not row.closed_ms:
                found.append(
                    f"the escrow of lease {row.lease.hex()[:8]} with {self.referee.name(row.provider)} is open"
                )
        return "never ended: " + "; ".join(found)
