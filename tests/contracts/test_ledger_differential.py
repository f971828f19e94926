"""The memory and the SQL home, asked the same things by honest people and by cheats: same answers, same rows, and sound
books after every step. Requests of one burst reach the SQL home as one batch and the memory home one at a time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests import postgres
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    HOUR,
    NOW,
    PROVIDER,
    REQUESTER,
    RIGHT,
    STRANGER,
    TERMS,
    TOKEN,
    WRONG,
    Dice,
    Person,
    claim,
    evidence,
    lease_id,
    lease_of,
    open_request,
    seal,
    slash_request,
    task,
    voucher,
    word,
)

from fallow.adapters.ledger_sql import SqlLedger, sqlite_url
from fallow.rules.escrow import PoolTerms, Table, faults, token_hash
from fallow.rules.escrow.rows import ChargeStage
from fallow.sim.ledger import MemoryLedger
from fallow.units import MAX_UCR
from fallow.wire.claims import task_id
from fallow.wire.documents import Lease, Voucher
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Grant,
    IssueToken,
    LedgerRefused,
    OpenAccount,
    Redeem,
    Refusal,
    Rule,
    SlashEquivocation,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message

EVERYBODY = (BANK, REQUESTER, PROVIDER, ALICE, BOB, STRANGER)
MEMBERS = EVERYBODY[:-1]
BURST = 6
persons = st.sampled_from(EVERYBODY)
members = st.sampled_from(MEMBERS)
amounts = st.one_of(st.integers(0, 1_500), st.sampled_from([MAX_UCR, MAX_UCR - 1_000]))
small = st.integers(1, 400)
numbers = st.integers(0, 1 << 30)
TIGHT = msgspec.structs.replace(TERMS, max_accounts=5, welcome_ucr=300)


class Homes(RuleBasedStateMachine):
    """Each rule adds a request to the burst; a full burst, or the clock, lets both homes answer it."""

    terms: PoolTerms = TIGHT

    def books(self) -> str:
        return sqlite_url(Path(self.folder) / "ledger.db")

    @initialize()
    def open_homes(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.mkdtemp()
        self.memory = MemoryLedger(self.terms, Dice(), seal, audit=True)
        self.sql = SqlLedger(self.books(), self.terms, Dice(), seal)
        self.now_ms, self.count = NOW, 0
        self.burst: list[tuple[Message, Person]] = []
        self.history: list[tuple[Message, Person]] = []
        self.leases: list[tuple[Lease, Person, Person]] = []
        for person in MEMBERS:
            self.ask(OpenAccount(self.operation(), person.certificate(), ""), person)
            self.ask(Grant(self.operation(), person.account, 2_000), BANK)
        for person in MEMBERS[2:]:
            self.ask(Deposit(self.operation(), 800), person)
        for person in (PROVIDER, ALICE, BOB):
            self.leases.append((lease_of(REQUESTER, person, cap_ucr=300), REQUESTER, person))
            self.ask(open_request(self.leases[-1][0], REQUESTER, person), REQUESTER)
        self.flush()

    def operation(self) -> bytes:
        self.count += 1
        return word("operation", self.count)

    def ask(self, request: Message, caller: Person) -> None:
        self.burst.append((request, caller))
        if len(self.burst) >= BURST:
            self.flush()

    def flush(self) -> None:
        burst, self.burst = self.burst, []
        self.history += burst
        now_ms = self.now_ms

        async def everywhere() -> tuple[list[Any], list[Any]]:
            at_once = [self.sql.apply(request, caller.account, now_ms) for request, caller in burst]
            one_by_one = [await self.memory.apply(request, caller.account, now_ms) for request, caller in burst]
            return list(await asyncio.gather(*at_once)), one_by_one

        sql, memory = self.runner.run(everywhere())
        assert sql == memory
        assert self.runner.run(self.sql.dump()) == self.memory.rows
        assert self.runner.run(self.sql.books()) == self.runner.run(self.memory.books())
        charged = self.runner.run(self.sql.balance(PROVIDER.account, now_ms))
        assert charged == self.runner.run(self.memory.balance(PROVIDER.account, now_ms))
        assert self.runner.run(self.sql.appeals()) == self.runner.run(self.memory.appeals())

    def pick(self, number: int) -> tuple[Lease, Person, Person]:
        return self.leases[number % len(self.leases)]

    # honest ---------------------------------------------------------------------------------------------------------

    @rule(person=members)
    def joins_with_an_invitation(self, person: Person) -> None:
        self.ask(IssueToken(self.operation(), token_hash(TOKEN), 2, self.now_ms + HOUR), BANK)
        self.ask(OpenAccount(self.operation(), person.certificate(self.now_ms), TOKEN), person)

    @rule(person=members, amount=amounts)
    def operator_grants(self, person: Person, amount: int) -> None:
        self.ask(Grant(self.operation(), person.account, amount), BANK)

    @rule(person=members, to=members, amount=small)
    def transfers(self, person: Person, to: Person, amount: int) -> None:
        self.ask(Transfer(self.operation(), to.account, amount), person)

    @rule(person=members, amount=small, out=st.booleans())
    def stakes_or_unbonds(self, person: Person, amount: int, out: bool) -> None:
        self.ask((Unbond if out else Deposit)(self.operation(), amount), person)

    @rule(requester=members, provider=members, cap=small, stake=st.integers(0, 300))
    def opens(self, requester: Person, provider: Person, cap: int, stake: int) -> None:
        lease = lease_of(
            requester, provider, order=self.operation(), cap_ucr=cap, stake_ucr=stake,
            starts_ms=self.now_ms, ends_ms=self.now_ms + HOUR,
        )  # fmt: skip
        self.leases.append((lease, requester, provider))
        self.ask(open_request(lease, requester, provider), requester)

    @rule(number=numbers, amount=small)
    def redeems(self, number: int, amount: int) -> None:
        lease, requester, provider = self.pick(number)
        self.ask(Redeem(voucher(lease, amount, requester)), provider)

    @rule(number=numbers)
    def provider_closes(self, number: int) -> None:
        lease, _, provider = self.pick(number)
        self.ask(CloseEscrow(lease_id(lease)), provider)

    @rule(number=numbers, root=st.integers(0, 2))
    def draws(self, number: int, root: int) -> None:
        lease, requester, provider = self.pick(number)
        self.ask(DrawAuditors(claim(lease, provider, word("root", root))), requester)

    @rule(number=st.integers(0, 2), name=st.sampled_from("ab"), amount=amounts)
    def charges_with_evidence(self, number: int, name: str, amount: int) -> None:
        """The first three leases are one requester's: whoever is charged, the other two are witnesses."""
        spec = task(name)
        (lease, _, accused), *others = (self.leases[(number + step) % 3] for step in range(3))
        witnesses = [evidence(other, who, spec, RIGHT) for other, _, who in others]
        lie = evidence(lease, accused, spec, WRONG)
        self.ask(DrawAuditors(lie.claim), REQUESTER)
        self.ask(slash_request(lie, witnesses, lease, spec, REQUESTER, amount), ALICE)

    @rule(number=st.integers(0, 2), name=st.sampled_from("ab"))
    def appeals(self, number: int, name: str) -> None:
        lease, _, accused = self.leases[number]
        self.ask(Appeal(lease_id(lease), task_id(task(name))), accused)

    @rule(number=st.integers(0, 2), name=st.sampled_from("ab"), upheld=st.booleans())
    def the_referee_rules(self, number: int, name: str, upheld: bool) -> None:
        self.ask(Rule(lease_id(self.leases[number][0]), task_id(task(name)), upheld), BANK)

    @rule(hours=st.sampled_from([0, 1, 2, 11]))
    def time_passes(self, hours: int) -> None:
        self.flush()
        self.now_ms += hours * HOUR + 1

    # cheats ---------------------------------------------------------------------------------------------------------

    @rule(number=numbers, by=persons)
    def replays(self, number: int, by: Person) -> None:
        """An earlier request again, by whoever asked or by somebody else."""
        if self.history:
            request, caller = self.history[number % len(self.history)]
            self.ask(request, caller if number % 2 else by)

    @rule(number=numbers, person=persons, amount=amounts)
    def reuses_an_operation_for_something_else(self, number: int, person: Person, amount: int) -> None:
        self.ask(Transfer(word("operation", number % (self.count + 1)), BANK.account, amount), person)

    @rule(person=persons, amount=amounts)
    def spends_more_than_there_is(self, person: Person, amount: int) -> None:
        self.ask(Transfer(self.operation(), BOB.account, MAX_UCR - amount), person)
        self.ask(Unbond(self.operation(), MAX_UCR), person)

    @rule(person=persons)
    def mints_and_invites_without_being_the_operator(self, person: Person) -> None:
        if person is not BANK:
            self.ask(Grant(self.operation(), person.account, 1_000), person)
            self.ask(IssueToken(self.operation(), token_hash("mine"), 9, NOW * 2), person)

    @rule(person=persons, thief=persons)
    def joins_as_somebody_else(self, person: Person, thief: Person) -> None:
        self.ask(OpenAccount(self.operation(), person.certificate(self.now_ms), "guessed"), thief)

    @rule(number=numbers, signer=persons, amount=amounts)
    def writes_its_own_voucher_or_goes_over_the_cap(self, number: int, signer: Person, amount: int) -> None:
        lease, _, provider = self.pick(number)
        self.ask(Redeem(voucher(lease, amount, signer)), provider)

    @rule(number=numbers, amount=small)
    def brings_a_voucher_of_another_bank(self, number: int, amount: int) -> None:
        lease, requester, provider = self.pick(number)
        self.ask(Redeem(requester.sign(Voucher(lease_id(lease), amount), ALICE.account)), provider)

    @rule(number=numbers, person=persons)
    def closes_early_or_what_is_not_its_own(self, number: int, person: Person) -> None:
        self.ask(CloseEscrow(lease_id(self.pick(number)[0])), person)

    @rule(number=numbers, signer=persons)
    def reopens_or_opens_in_the_name_of_others(self, number: int, signer: Person) -> None:
        lease, requester, provider = self.pick(number)
        self.ask(open_request(lease, requester, provider), provider)
        self.ask(open_request(lease, signer, provider), signer)

    @rule(number=numbers, person=persons)
    def provider_draws_its_own_auditors(self, number: int, person: Person) -> None:
        lease, _, provider = self.pick(number)
        self.ask(DrawAuditors(claim(lease, provider)), provider)
        self.ask(DrawAuditors(claim(lease, person)), person)

    @rule(number=st.integers(0, 2), who=st.integers(0, 5), signer=persons)
    def charges_without_evidence(self, number: int, who: int, signer: Person) -> None:
        """Witnesses are the accused itself, one voice twice, or nobody's lease; or the verdict is somebody else's."""
        spec, (lease, _, accused) = task("frame"), self.leases[number]
        others = [self.leases[(number + who % 3) % 3], self.leases[(number + who // 2) % 3]]
        witnesses = [evidence(other, person, spec, RIGHT) for other, _, person in others]
        lie = evidence(lease, accused, spec, WRONG)
        if who % 2:
            self.ask(DrawAuditors(lie.claim), REQUESTER)
        self.ask(slash_request(lie, witnesses, lease, spec, signer), signer)

    @rule(number=numbers, person=persons, name=st.sampled_from("ab"), upheld=st.booleans())
    def answers_or_rules_on_what_is_not_its_own(self, number: int, person: Person, name: str, upheld: bool) -> None:
        lease = lease_id(self.pick(number)[0])
        self.ask(Appeal(lease, task_id(task(name))), person)
        if person is not BANK:
            self.ask(Rule(lease, task_id(task(name)), upheld), person)

    @rule(number=st.integers(0, 2), amount=small)
    def witnesses_take_their_stake_away(self, number: int, amount: int) -> None:
        lease, _, provider = self.leases[number]
        self.ask(CloseEscrow(lease_id(lease)), provider)
        self.ask(Unbond(self.operation(), amount), provider)

    @rule(number=numbers, signer=persons, root=st.integers(0, 1))
    def charges_a_contradiction_that_may_be_none(self, number: int, signer: Person, root: int) -> None:
        lease, requester, _ = self.pick(number)
        one, two = claim(lease, signer, word("root", 0)), claim(lease, signer, word("root", root))
        self.ask(SlashEquivocation(lease_id(lease), one, two), requester)

    @precondition(lambda self: len(getattr(self, "history", ())) > 8)
    @rule()
    def nobody_is_answered_twice_differently(self) -> None:
        self.flush()
        ordered = [(r, c) for r, c in self.history if isinstance(r, (Transfer, Deposit, Unbond, Grant, IssueToken))]
        request, caller = ordered[self.count % len(ordered)]
        answers = [self.runner.run(self.memory.apply(request, caller.account, self.now_ms)) for _ in range(2)]
        assert answers[0] == answers[1]
        assert self.runner.run(self.sql.apply(request, caller.account, self.now_ms)) == answers[0]

    @invariant()
    def books_are_sound(self) -> None:
        assert faults(self.memory.rows) == []

    def teardown(self) -> None:
        if hasattr(self, "sql"):
            self.flush()
            self.sql.close()
            self.runner.close()
            shutil.rmtree(self.folder)


TestHomes = Homes.TestCase
TestHomes.settings = settings(max_examples=20, stateful_step_count=25)


class HomesOnPostgres(Homes):
    """The same with a PostgreSQL server as the SQL home."""

    def books(self) -> str:
        return postgres.books()


TestHomesOnPostgres = HomesOnPostgres.TestCase
TestHomesOnPostgres.settings = settings(max_examples=10, stateful_step_count=25)


@pytest.mark.parametrize("homes", [Homes, HomesOnPostgres])
def test_the_machine_reaches_what_it_is_there_for(homes: type[Homes]) -> None:
    """One straight walk: without it, nobody would notice rules that only ever get refused."""
    machine = homes()
    machine.open_homes()
    machine.redeems(0, 100)
    machine.draws(0, 0)
    machine.charges_with_evidence(0, "a", 100)
    machine.charges_with_evidence(1, "b", 50)
    machine.time_passes(0)
    machine.appeals(1, "b")
    machine.the_referee_rules(1, "b", upheld=False)
    machine.time_passes(1)
    machine.provider_closes(0)
    machine.time_passes(1)
    verdicts: list[Any] = [row for key, row in machine.memory.rows.items() if key.table is Table.VERDICT]
    assert {(row.stage, row.slashed_ucr) for row in verdicts} == {
        (ChargeStage.UPHELD, 100),
        (ChargeStage.OVERTURNED, 0),
    }
    request, caller = machine.history[-1]
    refused = machine.runner.run(machine.memory.apply(request, STRANGER.account, NOW))
    assert isinstance(refused, LedgerRefused)
    assert refused.reason == Refusal.NO_ACCOUNT
    assert caller is not STRANGER
    machine.teardown()
