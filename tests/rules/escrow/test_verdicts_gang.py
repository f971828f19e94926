"""A requester and three providers of one owner against honest ones, under chance: half of all that is asked cheats.
Honest people answer charges in time and the referee looks; then nobody of them ever loses a ucr, and the gang never
gains one, whatever it tries."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.ledger_world import (
    BANK,
    HOUR,
    RIGHT,
    TERMS,
    WRONG,
    Dice,
    Person,
    Pool,
    claim,
    evidence,
    lease_id,
    lease_of,
    open_request,
    ordered,
    seal,
    slash_request,
    task,
    word,
)

from fallow.rules.escrow import VerdictRow, faults
from fallow.sim.ledger import MemoryLedger
from fallow.wire.ledger import Appeal, CloseEscrow, Deposit, DrawAuditors, Rule, SlashEquivocation, Unbond

BUYER, *HONEST = (Person(f"honest {n}") for n in range(4))
BOSS, *GANG = (Person(f"gang {n}") for n in range(4))
names = st.sampled_from("abcdef")
thirds = st.integers(0, 2)


class Gang(RuleBasedStateMachine):
    """`leases` maps a provider's name and its requester's to the lease between them."""

    @initialize(drawn=st.sampled_from([4, 16]))
    def open_pool(self, drawn: int) -> None:
        terms = msgspec.structs.replace(TERMS, drawn=drawn, longest_lease_ms=1_000 * HOUR)
        self.pool = Pool(MemoryLedger(terms, Dice(), seal, audit=True))
        self.pool.join(BANK, BUYER, BOSS, *HONEST, *GANG)
        for person in (BUYER, BOSS):
            self.pool.grant(person, 5_000)
        for person in (*HONEST, *GANG):
            self.pool.grant(person, 1_000)
            self.pool.does(Deposit(self.pool.operation(), 600), person)
        self.leases: dict[tuple[str, str], Any] = {}
        for requester in (BUYER, BOSS):
            for provider in (*HONEST, *GANG):
                self.hire(requester, provider)
        self.start = self.wealth(BUYER, *HONEST), self.wealth(BOSS, *GANG)

    def hire(self, requester: Person, provider: Person, stake_ucr: int = 150) -> None:
        lease = lease_of(
            requester, provider, quote=self.pool.operation(), cap_ucr=200, stake_ucr=stake_ucr,
            order=ordered(requester), ends_ms=self.pool.now_ms + 900 * HOUR,
        )  # fmt: skip
        self.pool.ask(open_request(lease, requester, provider), requester)
        self.leases[requester.name, provider.name] = lease

    def wealth(self, *people: Person) -> int:
        seen = [self.pool.balance(one) for one in people]
        return sum(one.available_ucr + one.escrowed_ucr + one.staked_ucr for one in seen)

    def charge(self, requester: Person, accused: Person, witnesses: list[Person], name: str, amount: int) -> None:
        spec, lease = task(name), self.leases[requester.name, accused.name]
        lie = evidence(lease, accused, spec, WRONG)
        self.pool.ask(DrawAuditors(lie.claim), requester)
        others = [evidence(self.leases[requester.name, one.name], one, spec, RIGHT) for one in witnesses]
        self.pool.ask(slash_request(lie, others, lease, spec, requester, amount), requester)

    def appeal(self, who: Person) -> None:
        """Against everything that is charged to it; the referee knows who did what."""
        for row in list(self.pool.home.rows.values()):
            if isinstance(row, VerdictRow) and row.accused == who.account and row.is_open:
                self.pool.ask(Appeal(row.lease, row.ground), who)
                self.pool.ask(Rule(row.lease, row.ground, upheld=who in GANG), BANK)

    # honest ---------------------------------------------------------------------------------------------------------

    @rule(who=thirds, name=names)
    def a_lie_is_charged(self, who: int, name: str) -> None:
        self.charge(BUYER, GANG[who], HONEST[:2], name, 150)

    @rule(hours=st.integers(0, 30))
    def time_passes(self, hours: int) -> None:
        for honest in HONEST:
            self.appeal(honest)
        self.pool.now_ms += hours * HOUR

    @rule(who=thirds, amount=st.integers(1, 300))
    def honest_stake_moves(self, who: int, amount: int) -> None:
        self.pool.ask(Deposit(self.pool.operation(), amount), HONEST[who])

    @rule(who=thirds, again=st.booleans())
    def honest_leases_end_and_begin(self, who: int, again: bool) -> None:
        self.pool.ask(CloseEscrow(lease_id(self.leases[BUYER.name, HONEST[who].name])), HONEST[who])
        if again:
            self.hire(BUYER, HONEST[who])

    # cheats ---------------------------------------------------------------------------------------------------------

    @rule(who=thirds, one=thirds, step=st.integers(0, 2), name=names, amount=st.integers(0, 400))
    def puppets_bear_witness(self, who: int, one: int, step: int, name: str, amount: int) -> None:
        self.charge(BOSS, HONEST[who], [GANG[one], GANG[(one + step) % 3]], name, amount)

    @rule(who=thirds)
    def the_guilty_appeal(self, who: int) -> None:
        self.appeal(GANG[who])

    @rule(who=thirds, amount=st.integers(1, 600), requester=st.sampled_from([BUYER, BOSS]))
    def puppets_take_their_stake_away(self, who: int, amount: int, requester: Person) -> None:
        self.pool.ask(CloseEscrow(lease_id(self.leases[requester.name, GANG[who].name])), GANG[who])
        self.pool.ask(Unbond(self.pool.operation(), amount), GANG[who])

    @rule(who=thirds, amount=st.integers(1, 600))
    def puppets_hide_behind_leases(self, who: int, amount: int) -> None:
        self.hire(BOSS, GANG[who], amount)

    @rule(who=thirds, signer=st.sampled_from([BOSS, *GANG]))
    def contradictions_are_forged(self, who: int, signer: Person) -> None:
        lease = self.leases[BOSS.name, HONEST[who].name]
        one, two = (claim(lease, signer, word(name)) for name in "ab")
        self.pool.ask(SlashEquivocation(lease_id(lease), one, two), BOSS)

    @rule(who=thirds, name=names, by=st.sampled_from([BOSS, *GANG]), upheld=st.booleans())
    def the_gang_judges(self, who: int, name: str, by: Person, upheld: bool) -> None:
        self.pool.ask(Rule(lease_id(self.leases[BOSS.name, HONEST[who].name]), word(name), upheld), by)

    @invariant()
    def nobody_honest_loses_and_no_cheat_gains(self) -> None:
        if hasattr(self, "start"):
            assert faults(self.pool.home.rows) == []
            assert self.wealth(BUYER, *HONEST) >= self.start[0]
            assert self.wealth(BOSS, *GANG) <= self.start[1]
            assert not any(self.pool.balance(one).slashed_ucr for one in HONEST)


TestGang = Gang.TestCase
TestGang.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
