"""A whole pool in one simulated world: bank, directories, steward, providers and a user, made from a plan and run to
the end by the node's own code."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from contextlib import closing

from blake3 import blake3

from fallow.adapters.keys import Identity
from fallow.node.config import Config, ProviderConfig
from fallow.node.steward.role import Steward
from fallow.rules import trust
from fallow.rules.escrow import EscrowRow, PoolTerms
from fallow.rules.steward.events import Timing
from fallow.sim.accuser import Accuser
from fallow.sim.chain import content, digest
from fallow.sim.cheats import GALLERY, Ways
from fallow.sim.disk import SimBlobs
from fallow.sim.host import GENESIS_MS, Dice, FakeMachine, Host
from fallow.sim.ledger import MemoryLedger
from fallow.sim.loop import VirtualLoop
from fallow.sim.plan import AMPLE_S, DATA, MODEL, RICH_UCR, Happening, JobPlan, Plan, ProviderPlan
from fallow.sim.referee import Violation
from fallow.sim.user import User
from fallow.sim.world import MANY, Visitor, World
from fallow.units import GIB, NodeId, format_money
from fallow.wire.ledger import Grant, LedgerDone, OpenAccount
from fallow.wire.local import UNCHECKED
from fallow.wire.messages import Message, NodeAddress
from fallow.wire.tasks import Part

PURSE_UCR = 50_000_000
LIMIT_S = 2_400.0
"""Long after every deadline in these worlds: what has not ended by then never ends."""
LOOK_EVERY_S = 0.5
QUIET_S = 6.0
"""How long nothing may be left to do before the world is over: the last word on a lease may still be on its way."""
UNSETTLED = ("offered", "open", "leaving", "unobserved", "lost")

# Patience outlasts every fault of these worlds: all providers can be out of reach for as long at the wrong moment.
TIMING = Timing(
    patience=60_000, search_every=3_000, quote_within=6_000, lost_after=15_000, lease_length=240_000,
    audit_within=20_000, round_within=30_000,
)  # fmt: skip


class TownLedger(MemoryLedger):
    """The bank's ledger, which is on its disk: a death loses requests and answers, never rows."""

    host: Host

    async def apply(self, request: Message, caller: bytes, now_ms: int) -> Message:
        self.host.point()
        answer = await super().apply(request, caller, now_ms)
        self.host.town.referee.books()
        self.host.point()
        return answer


class Town(World):
    """Everybody. `run` plays the plan to its end and raises Violation when an invariant breaks or something never
    ends."""

    def __init__(self, loop: VirtualLoop, seed: int, plan: Plan) -> None:
        super().__init__(loop, seed, plan, TIMING)
        self.network.point = self._point
        self.hosts: dict[str, Host] = {}
        self.bank = self._host("bank", "bank")
        self.referee.bank = self.bank_account = self.bank.identity.account
        terms = PoolTerms(
            self.bank_account, self.bank_account, unbonding_ms=120_000, grace_ms=10_000, hold_ms=60_000,
            answer_ms=20_000, ruling_ms=60_000, invited_only=len(plan.providers) < MANY,
        )  # fmt: skip
        self.ledger = TownLedger(terms, Dice((seed, "ledger")), lambda s: self.bank.identity.sign(s, self.bank_account))
        self.ledger.host = self.bank
        self.bank.ledger = lambda: self.ledger
        self.referee.ledger = self.ledger
        self.listed = [self._host(f"directory{number}", "directory") for number in range(2)]
        self.directories = tuple(NodeAddress(one.identity.node, (one.name,)) for one in self.listed)
        self.steward = self._host("steward", "steward")
        self.providers = [self._provider(each) for each in plan.providers]
        self.accuser = Accuser(self.steward) if plan.accuses else None
        if self.accuser is not None:
            self.steward.chores.append(self.accuser.accuse)
            self.hear = self.accuser.seen
        self.strangers: list[Visitor] = []
        self._by_node = {host.identity.node: host for host in self.hosts.values()}
        self.user = User(self.steward, plan.jobs)
        for job in plan.jobs:
            check, _, settings = job.spec.verify.partition(":")
            policy = None if check == UNCHECKED else trust.parse_settings(settings)
            assert not isinstance(policy, str)
            self.referee.policies[digest("job", job.name)] = policy

    def _host(self, name: str, role: str, sold: ProviderConfig | None = None, ways: Ways | None = None) -> Host:
        config = Config(quota="50G", mdns=False, purse="0", provider=sold or ProviderConfig())
        host = self.hosts[name] = Host(self, name, role, config, ways)
        return host

    def _provider(self, plan: ProviderPlan) -> Host:
        ways = Ways() if plan.way == "honest" else GALLERY[plan.way](
            plan.salt, random.Random(f"{self.seed} {plan.name}")
        )  # fmt: skip
        watched = any(plan.name in one.who for one in self.plan.happenings if one.kind == "owner")
        sold = ProviderConfig(
            prices=dict.fromkeys(("echo", "train"), plan.price_ucr), stake=format_money(plan.stake_ucr).split()[0],
            idle="input 5m and quiet 1s" if watched else "always",
        )  # fmt: skip
        host = self._host(plan.name, "provider", sold, ways)
        host.machine, host.units_per_s = FakeMachine(plan.numerics, plan.speed), plan.speed
        host.clock.skew_ms = plan.skew_ms
        if plan.breaks:
            host.chores.append(lambda: host.break_workers(plan.breaks))
        if not ways.honest:
            self.referee.cheats.add(host.identity.account)
        return host

    @property
    def trace(self) -> str:
        """The hash of all that happened so far."""
        return blake3(self.network.trace.digest() + repr(self.ledger.journal).encode()).hexdigest()

    def _point(self, node: NodeId) -> None:
        if node in self._by_node:  # nothing happens to those who only attack
            self._by_node[node].point()

    # faults -----------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        for happening in self.plan.happenings:
            self.loop.call_later(happening.at_ms / 1_000, self._happen, happening)
        self.loop.call_later(self.plan.calm_ms / 1_000, self._calm)

    def _calm(self) -> None:
        self.note("calm")
        self.network.clear_up()
        for host in self.hosts.values():
            host.calm()

    def _happen(self, happening: Happening) -> None:
        self.note(f"{happening.kind} {' '.join(happening.who)} for {happening.for_ms} ms")
        host, for_s = self.hosts[happening.who[0]], happening.for_ms / 1_000
        inside = [self.hosts[name].identity.node for name in happening.who]
        outside = [other.identity.node for other in self.hosts.values() if other.name not in happening.who]
        match happening.kind:
            case "crash":
                host.doom(happening.points, for_s)
            case "kill":
                host.kill(for_s)
            case "owner":
                host.machine.busy = True
                self.loop.call_later(for_s, setattr, host.machine, "busy", False)
            case "full":
                host.disk.full = True
                self.loop.call_later(for_s, setattr, host.disk, "full", False)
            case "jump":
                before, host.clock.skew_ms = host.clock.skew_ms, host.clock.skew_ms + 6_000
                self.loop.call_later(for_s, setattr, host.clock, "skew_ms", before)
            case "slow":
                self.network.slow |= dict.fromkeys(inside, 0.5)
                self.loop.call_later(for_s, lambda: [self.network.slow.pop(node, None) for node in inside])
            case "clog" | "deaf":
                both = happening.kind == "clog"
                self.network.hold(outside, inside, self.loop.time() + for_s)
                self.network.hold(inside if both else (), outside, self.loop.time() + for_s)
            case _:
                for one, other in itertools.product(inside, outside):
                    self.network.cut(one, other)
                    self.loop.call_later(for_s, self.network.heal, one, other)

    # from the beginning to the end ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play to the end. Raises Violation."""
        try:
            await self._open()
            self._schedule()
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(one.live(), name=one.name) for one in self.strangers]
                user = group.create_task(self.user.live(), name="user")
                quiet_s = 0.0
                while quiet_s < QUIET_S:
                    await asyncio.sleep(LOOK_EVERY_S)
                    quiet_s = quiet_s + LOOK_EVERY_S if self._over() else 0.0
                    self._look()
                    if self.loop.time() > LIMIT_S:
                        raise Violation(self._unfinished())
                for task in (user, *others):
                    task.cancel()
            self._judge()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def close(self) -> None:
        """Let go of all disks, once nobody is left who uses them."""
        for host in self.hosts.values():
            host.disk.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _open(self) -> None:
        with closing(SimBlobs(GIB, self.steward.disk)) as store:
            for blob in (MODEL, DATA):
                store.put(content(Part("input", blob, 1_000)))
        self.bank.start()
        await self.bank.ready.wait()
        await self.admit(self.steward.identity, PURSE_UCR)
        for host, plan in zip(self.providers, self.plan.providers, strict=True):
            await self.admit(host.identity, plan.stake_ucr)
        for host in self.hosts.values():
            host.start()

    async def admit(self, me: Identity, grant_ucr: int) -> None:
        """An account with money, as the bank's owner gives it."""
        opening = OpenAccount(me.node, me.certificate(GENESIS_MS - 1_000), "")
        for caller, request in (
            (self.bank_account, Grant(me.node, me.account, grant_ucr)), (me.account, opening),
        ):  # fmt: skip
            answer = await MemoryLedger.apply(self.ledger, request, caller, GENESIS_MS)
            assert isinstance(answer, LedgerDone), answer
        self.referee.minted_ucr += grant_ucr

    def _look(self) -> None:
        for host in self.providers:
            if host.up and host.ways.honest:
                self.referee.provider(host.identity.node, host.leases)
        steward = self.steward.stewarding
        if steward is not None:
            self.referee.jobs([steward.view(job) for job in steward.jobs()])
        self.referee.look()

    def _over(self) -> bool:
        """Whether nothing is left to happen: all is calm, every job has ended and every escrow is resolved."""
        if self.loop.time() * 1_000 < self.plan.calm_ms or self.steward.stewarding is None:
            return False
        if any(digest("job", job.name) not in self.referee.ended for job in self.plan.jobs):
            return False
        return not self._open_leases() and not any(not row.closed_ms for row in self.escrows())

    def escrows(self) -> list[EscrowRow]:
        """All that the bank ever opened."""
        return [row for row in self.ledger.rows.values() if isinstance(row, EscrowRow)]

    def _open_leases(self) -> list[str]:
        steward = self.steward.stewarding
        views = [steward.view(job) for job in steward.jobs()] if steward is not None else []
        return [
            f"{view.name} is {view.phase}, its lease with {self.referee.name(lease.node)} {lease.state}"
            for view in views for lease in view.leases if lease.state in UNSETTLED
        ]  # fmt: skip

    def _judge(self) -> None:
        """Everything is over: what must be true now."""
        for host in self.hosts.values():
            host.calm()
        self.referee.books()
        self.referee.settled()
        steward = self.steward.stewarding
        assert steward is not None
        again = Steward(self.steward.services, self.timing)
        again.replay()
        if again.state != steward.state:
            self.referee.wrong("replaying the steward's log gives another state than the one that it has")
        easy = not self.plan.cheats and not self.plan.accuses
        for job in self.plan.jobs if easy else ():
            self._has_its_result(job)
        self.referee.look()

    def _has_its_result(self, plan: JobPlan) -> None:
        """Where nobody cheats and money and time were ample, no fault is an excuse for not having the result."""
        ended = self.referee.ended[digest("job", plan.name)]
        ample = plan.spec.budget_ucr >= RICH_UCR and plan.spec.timeout_s >= AMPLE_S and not plan.cancel_ms
        if ample and (ended.code or None in ended.outputs):
            self.referee.wrong(f"{plan.name} ended with {ended.code} {ended.what}, although nobody cheats")

    def _unfinished(self) -> str:
        """What never ended, in words."""
        found = self._open_leases()
        found += [f"{j.name} has not ended" for j in self.plan.jobs if digest("job", j.name) not in self.referee.ended]
        found += [f"the escrow with {self.referee.name(r.provider)} is open" for r in self.escrows() if not r.closed_ms]
        found += [f"{name} is down" for name, host in self.hosts.items() if not host.up]
        return f"never ended: {'; '.join(found)}"
