"""Bugs to plant: each undoes one thing that the rules or the node do right, where production runs it, so that tests can
show that the simulator would notice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec

from fallow.errors import UnavailableError
from fallow.node import bank_client
from fallow.node.provider import role as provider_role
from fallow.node.steward import effects
from fallow.node.steward import role as steward_role
from fallow.rules import market, trust
from fallow.rules.escrow import EscrowRow, leases, ledger, verdicts
from fallow.rules.escrow.books import Draft, escrow_of
from fallow.rules.escrow.facts import VerdictFacts, VoucherFacts
from fallow.rules.escrow.rows import Book, Place, PoolTerms
from fallow.rules.membership import Presence, Roll
from fallow.rules.provider import events, machine
from fallow.rules.provider.state import LeaseEntry, ProviderState
from fallow.rules.steward import claims, snapshot
from fallow.rules.steward import events as t
from fallow.rules.steward import machine as steward_machine
from fallow.rules.steward.checks import ballot
from fallow.rules.steward.shapes import lanes
from fallow.wire.codec import encode
from fallow.wire.ledger import Refusal

if TYPE_CHECKING:
    from fallow.sim.town import Town

Spoil = Callable[["Town"], None]
Wrong = Callable[..., Any]
"""What is done instead; its first argument is what is right."""


class Bug:
    """What is replaced, where, and by what; and what is done to a town before it runs."""

    def __init__(self, spoil: Spoil) -> None:
        self.patches: list[tuple[Any, str, type | None, Wrong]] = []
        self.spoil = spoil


BUGS: dict[str, Bug] = {}


def _nothing(_town: Town) -> None:
    return


def storm(town: Town) -> None:
    """No bug: many more deaths than a plan has, for bugs that only a death at the right point shows."""
    rng = random.Random(f"storm {town.seed}")
    for number in range(40):
        host, points = rng.choice([town.steward, *town.providers]), rng.randrange(1, 9)
        town.loop.call_later(number, host.doom, points, 0.3)


def plant(name: str, place: Any, attribute: str, spoil: Spoil = _nothing, on: type | None = None) -> Callable[..., Any]:
    """The function below is called instead, or instead of the handler of events of type `on`."""

    def known(wrong: Wrong) -> Wrong:
        BUGS.setdefault(name, Bug(spoil)).patches.append((place, attribute, on, wrong))
        return wrong

    return known


def spoils(name: str) -> Callable[[Spoil], Spoil]:
    """A bug of the world alone."""

    def known(spoil: Spoil) -> Spoil:
        BUGS[name] = Bug(spoil)
        return spoil

    return known


@plant("redeem-pays-again", ledger, "redeem")
def _redeem_again(_right: Any, draft: Draft, facts: VoucherFacts) -> Refusal | None:
    escrow = escrow_of(draft, facts.lease)
    if escrow is None or escrow.closed_ms or facts.signer != escrow.requester:
        return Refusal.ESCROW_CLOSED
    amount = min(facts.cumulative_ucr, escrow.locked_ucr)
    draft.put(msgspec.structs.replace(escrow, paid_ucr=escrow.paid_ucr + amount))
    draft.move(Book(Place.ESCROW, escrow.lease), Book(Place.AVAILABLE, escrow.provider), amount)
    return None


@plant("forged-voucher-paid", ledger, "redeem")
def _forged_voucher(right: Any, draft: Draft, facts: VoucherFacts) -> Refusal | None:
    escrow = escrow_of(draft, facts.lease)
    signer = escrow.requester if escrow is not None else facts.signer
    return right(draft, msgspec.structs.replace(facts, signer=signer))


@plant("escrow-not-released", ledger, "close_escrow")
def _agree(*_: Any) -> None:
    return


@plant("slash-without-evidence", ledger, "slash")
def _no_evidence(_right: Any, draft: Draft, facts: VerdictFacts, now_ms: int, terms: PoolTerms) -> Refusal | None:
    place: Any = verdicts
    escrow = escrow_of(draft, facts.lease)
    assert escrow is not None, "they charge under leases that they have"
    return place._lock(draft, facts, escrow, {escrow.provider: escrow.stake_ucr}, now_ms, terms)


@plant("escrow-opened-twice", ledger, "open_escrow")
def _opened_twice(right: Any, draft: Draft, *rest: Any) -> Refusal | None:
    with patch.object(leases, "escrow_of", _agree):
        return right(draft, *rest)


@plant("final-without-check", trust, "tally")
def _first_answer_settles(_right: Any, votes: list[trust.Vote], _under_way: int, _quorum: int) -> trust.Settled:
    return trust.Settled(votes[0].answer, (votes[0].account,), ())


@plant("cheat-is-paid", ballot, "_catch")
def _cheat_is_paid(_right: Any, turn: Any, job: Any, _slot: Any, run: Any, _agree: Any) -> None:
    vars(ballot)["_finalise"](turn, job, run, claims.Finding("checked", "outvoted"))


@plant("claim-counted-twice", claims, "_owe")
def _units_twice(right: Any, *what: Any) -> None:
    right(*what)
    right(*what)


@plant("lane-claim-paid-again", lanes, "answered")
def _lane_claim_again(right: Any, turn: Any, job: Any, seat: Any, event: Any) -> None:
    if event.claim_hash not in turn.state.claims:
        seat.lane.next = 1
    right(turn, job, seat, event)


@plant("budget-ignored", market, "cap_for")
def _budget_ignored(_right: Any, *_: int) -> int:
    return 1_000_000


@plant("unobserved-is-dead", Roll, "presence")
def _unobserved_is_dead(_right: Any, roll: Roll, node: bytes, *_: int) -> Presence:
    return Presence.DEAD if node in roll.since else Presence.OBSERVED


@plant("lower-voucher-kept", machine, "on_paid")
def _lower_voucher(right: Any, lease: LeaseEntry, event: Any, redeem_ms: int) -> Any:
    if lease.phase != "closed":
        lease.voucher_ucr = 0
    return right(lease, event, redeem_ms)


@plant("assigned-without-dedupe", machine, "_ON_LEASE", on=events.PeerAssigned)
def _assigned_again(right: Any, state: Any, lease: LeaseEntry, event: events.PeerAssigned) -> Any:
    if event.task in lease.tasks and lease.tasks[event.task].phase == "claimed":
        del lease.tasks[event.task]
    return right(state, lease, event)


@plant("claims-renumbered", machine, "_HANDLERS", on=events.ProviderRestarted)
def _claims_renumbered(right: Any, state: ProviderState, event: Any) -> Any:
    for lease in state.leases.values():
        lease.claims = 0
    return right(state, event)


@plant("acts-before-writing", steward_role.Steward, "_take", storm)
async def _acts_before_writing(_right: Any, self: Any, given: Any) -> None:
    """Decides and acts first, and writes what it decided on when that is done."""
    effects = [effect for event in given for effect in steward_machine.transition(self.state, event)]
    records = [effect for effect in effects if isinstance(effect, t.RECORDS)]
    self._start(effect for effect in effects if not isinstance(effect, t.RECORDS))
    await asyncio.sleep(0.05)
    self._last = await asyncio.to_thread(self._services.log.append, steward_role.STREAM, [*map(encode, given)])
    await asyncio.to_thread(self._keep, records)
    self.records.tell(records)
    for event in given:
        if isinstance(event, t.LedgerClosed):
            self._watches.stop(event.lease)
            self.lanes.close(event.lease)


@plant("acts-before-writing", provider_role.Provider, "_keep", storm)
async def _keeps_late(right: Any, self: Any, records: Any, effects: Any) -> None:
    self.spawn(right(self, records, effects), "late writing")
    await asyncio.sleep(0)


@plant("claims-before-writing", provider_role.Provider, "_keep", storm)
async def _claims_before_writing(_right: Any, self: Any, records: Any, effects: Any) -> None:
    """Tells of claims before what they follow from is on disk."""
    told = [effect for effect in effects if isinstance(effect, events.EmitEvent | events.SignClaim)]
    await self.feeds.append(told)
    await asyncio.sleep(0.05)
    if records:
        await asyncio.to_thread(self.services.log.append, provider_role.STREAM, records)


@spoils("disk-lies")
def _disk_lies(town: Town) -> None:
    for host in (town.steward, *town.providers):
        host.disk.flushes = False


@plant("events-go-first", steward_role.Steward, "_compact", storm)
async def _events_go_first(_right: Any, self: Any) -> None:
    """Forgets the events before their snapshot is written."""
    if self._since_bytes:
        self._services.log.cut(steward_role.STREAM, self._last, {})
        await asyncio.sleep(0.05)
        raw = snapshot.write_snapshot(self.state, self._last)
        self._services.log.put(steward_role.SNAPSHOT, raw)
        self._since_bytes = 0


@plant("trusting-close", effects.Performer, "_close")
async def _trusting_close(right: Any, self: Any, effect: t.EndLease) -> t.StewardEvent:
    """Believes a provider that says that it has closed."""
    asked = vars(effects.Performer)["_ask_to_close"]
    try:
        return await right(self, effect)
    except UnavailableError:
        await asked(self, effect)
        return t.LedgerClosed(self._now(), effect.lease, effect.cumulative_ucr, 0, 0)


@plant("bond-kept", bank_client.BankClient, "close")
async def _bond_kept(right: Any, self: Any, lease: bytes) -> None:
    """Leaves out the word that frees the bond of a lease which its provider has closed."""
    standing = await self.standing(lease)
    if standing is None or not standing.said.closed_ms:
        await right(self, lease)


@plant("voucher-forgotten", machine, "_ON_LEASE", storm, on=events.PeerPaid)
def _voucher_forgotten(right: Any, state: ProviderState, *what: Any) -> Any:
    """Says that it has the voucher, and writes nothing down."""
    before = state.changes
    try:
        return right(state, *what)
    finally:
        state.changes = before


@spoils("bank-forgets")
def _bank_forgets(town: Town) -> None:
    """A bank that loses the escrow rows of the last seconds when it dies."""

    def lose() -> None:
        rows, young_ms = town.ledger.rows, town.bank.clock.now_ms() - 5_000
        for key in [k for k, r in rows.items() if isinstance(r, EscrowRow) and r.opened_ms > young_ms]:
            del rows[key]
        right()

    right = town.bank.disk.crash
    vars(town.bank.disk)["crash"] = lose
    for at_s in (2.5, 5.0, 9.0):
        town.loop.call_later(at_s, town.bank.kill, 0.5)


def _instead(wrong: Wrong, right: Any) -> Any:
    def call(*what: Any, **named: Any) -> Any:
        return wrong(right, *what, **named)

    return call


def _patch(place: Any, attribute: str, on: type | None, wrong: Wrong) -> Any:
    right = getattr(place, attribute)
    if on is not None:
        return patch.dict(right, {on: _instead(wrong, right[on])})
    return patch.object(place, attribute, _instead(wrong, right))


@contextmanager
def planted(name: str) -> Iterator[Spoil]:
    """While open, the node has the bug `name` ("" for none); call what it gives with the town before it runs. KeyError
    for a bug that is not there. Changes modules: not for threads."""
    bug = BUGS[name] if name else Bug(_nothing)
    with ExitStack() as stack:
        for each in bug.patches:
            stack.enter_context(_patch(*each))
        yield bug.spoil
