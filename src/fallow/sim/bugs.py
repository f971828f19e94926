"""Bugs to plant: each undoes one thing that the rules or the node do right, where production runs it, so that tests can
show that the simulator would notice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from fallow.errors import UnavailableError
from fallow.node import bank_client
from fallow.node.provider import role as provider_role
from fallow.node.steward import effects
from fallow.node.steward import role as steward_role
from fallow.rules import market, trust
from fallow.rules.escrow import EscrowRow, leases, ledger, verdicts
from fallow.rules.escrow.books import Draft, escrow_of
from fallow.rules.escrow.facts import VoucherFacts
from fallow.rules.escrow.rows import Book, Place
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
    from fallow.sim.host import Host
    from fallow.sim.town import Town

Spoil = Callable[["Town"], None]
Patch = tuple[Any, str, Any]
Bug = Callable[[], tuple[list[Patch], Spoil]]


def _nothing(_town: Town) -> None:
    return


def _agree(*_: Any) -> None:
    return


def _redeem_again() -> tuple[list[Patch], Spoil]:
    def redeem(draft: Draft, facts: VoucherFacts) -> Refusal | None:
        escrow = escrow_of(draft, facts.lease)
        if escrow is None or escrow.closed_ms or facts.signer != escrow.requester:
            return Refusal.ESCROW_CLOSED
        amount = min(facts.cumulative_ucr, escrow.locked_ucr)
        draft.put(msgspec.structs.replace(escrow, paid_ucr=escrow.paid_ucr + amount))
        draft.move(Book(Place.ESCROW, escrow.lease), Book(Place.AVAILABLE, escrow.provider), amount)
        return None

    return [(ledger, "redeem", redeem)], _nothing


def _forged_voucher() -> tuple[list[Patch], Spoil]:
    right = leases.redeem

    def redeem(draft: Draft, facts: VoucherFacts) -> Refusal | None:
        escrow = escrow_of(draft, facts.lease)
        signer = escrow.requester if escrow is not None else facts.signer
        return right(draft, msgspec.structs.replace(facts, signer=signer))

    return [(ledger, "redeem", redeem)], _nothing


def _escrow_kept() -> tuple[list[Patch], Spoil]:
    return [(ledger, "close_escrow", _agree)], _nothing


def _opened_twice() -> tuple[list[Patch], Spoil]:
    right = leases.open_escrow

    def open_escrow(draft: Draft, *rest: Any) -> Refusal | None:
        place: Any = leases
        known, place.escrow_of = place.escrow_of, _agree
        try:
            return right(draft, *rest)
        finally:
            place.escrow_of = known

    return [(ledger, "open_escrow", open_escrow)], _nothing


def _no_witnesses() -> tuple[list[Patch], Spoil]:
    return [(verdicts, "_witnesses_stand", _agree)], _nothing


def _first_answer_settles() -> tuple[list[Patch], Spoil]:
    def tally(votes: list[trust.Vote], _under_way: int, _quorum: int) -> trust.Settled:
        return trust.Settled(votes[0].answer, (votes[0].account,), ())

    return [(trust, "tally", tally)], _nothing


def _cheat_is_paid() -> tuple[list[Patch], Spoil]:
    def catch(turn: Any, job: Any, _slot: Any, run: Any, _agree: Any) -> None:
        vars(ballot)["_finalise"](turn, job, run, claims.Finding("checked", "outvoted"))

    return [(ballot, "_catch", catch)], _nothing


def _units_twice() -> tuple[list[Patch], Spoil]:
    right = vars(claims)["_owe"]

    def owe(*what: Any) -> None:
        right(*what)
        right(*what)

    return [(claims, "_owe", owe)], _nothing


def _lane_claim_again() -> tuple[list[Patch], Spoil]:
    right = lanes.answered

    def answered(turn: Any, job: Any, seat: Any, event: Any) -> None:
        if event.claim_hash not in turn.state.claims:
            seat.lane.next = 1
        right(turn, job, seat, event)

    return [(lanes, "answered", answered)], _nothing


def _budget_ignored() -> tuple[list[Patch], Spoil]:
    def cap_for(*_: int) -> int:
        return 1_000_000

    return [(market, "cap_for", cap_for)], _nothing


def _unobserved_is_dead() -> tuple[list[Patch], Spoil]:
    def presence(roll: Roll, node: bytes, *_: int) -> Presence:
        return Presence.DEAD if node in roll.since else Presence.OBSERVED

    return [(Roll, "presence", presence)], _nothing


def _lower_voucher() -> tuple[list[Patch], Spoil]:
    right = machine.on_paid

    def on_paid(lease: LeaseEntry, event: Any, redeem_ms: int) -> Any:
        if lease.phase != "closed":
            lease.voucher_ucr = 0
        return right(lease, event, redeem_ms)

    return [(machine, "on_paid", on_paid)], _nothing


def _assigned_again() -> tuple[list[Patch], Spoil]:
    handlers = vars(machine)["_HANDLERS"]
    right = handlers[events.PeerAssigned]

    def on_assigned(state: ProviderState, event: events.PeerAssigned) -> Any:
        lease = state.leases.get(event.lease)
        if lease is not None and event.task in lease.tasks and lease.tasks[event.task].phase == "claimed":
            del lease.tasks[event.task]
        return right(state, event)

    return [(machine, "_HANDLERS", {**handlers, events.PeerAssigned: on_assigned})], _nothing


def _claims_renumbered() -> tuple[list[Patch], Spoil]:
    handlers = vars(machine)["_HANDLERS"]
    right = handlers[events.ProviderRestarted]

    def on_restarted(state: ProviderState, event: Any) -> Any:
        for lease in state.leases.values():
            lease.claims = 0
        return right(state, event)

    return [(machine, "_HANDLERS", {**handlers, events.ProviderRestarted: on_restarted})], _nothing


def storm(town: Town) -> None:
    """No bug: many more deaths than a plan has, for bugs that only a death at the right point shows."""
    rng = random.Random(f"storm {town.seed}")
    for number in range(40):
        host, points = rng.choice([town.steward, *town.providers]), rng.randrange(1, 9)
        town.loop.call_later(number, host.doom, points, 0.3)


def _acts_before_writing() -> tuple[list[Patch], Spoil]:
    right = vars(provider_role.Provider)["_keep"]

    async def take(self: Any, given: Any) -> None:
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

    async def keep(self: Any, records: Any, effects: Any) -> None:
        self.spawn(right(self, records, effects), "late writing")
        await asyncio.sleep(0)

    return [(steward_role.Steward, "_take", take), (provider_role.Provider, "_keep", keep)], storm


def _claims_before_writing() -> tuple[list[Patch], Spoil]:
    async def keep(self: Any, records: Any, effects: Any) -> None:
        """Tells of claims before what they follow from is on disk."""
        told = [effect for effect in effects if isinstance(effect, events.EmitEvent | events.SignClaim)]
        await self.feeds.append(told)
        await asyncio.sleep(0.05)
        if records:
            await asyncio.to_thread(self.services.log.append, provider_role.STREAM, records)

    return [(provider_role.Provider, "_keep", keep)], storm


def _disk_lies() -> tuple[list[Patch], Spoil]:
    def spoil(town: Town) -> None:
        for host in (town.steward, *town.providers):
            host.disk.flushes = False

    return [], spoil


def _events_go_first() -> tuple[list[Patch], Spoil]:
    async def compact(self: Any) -> None:
        """Forgets the events before their snapshot is written."""
        if self._since_bytes:
            self._services.log.cut(steward_role.STREAM, self._last, {})
            await asyncio.sleep(0.05)
            raw = snapshot.write_snapshot(self.state, self._last)
            self._services.log.put(steward_role.SNAPSHOT, raw)
            self._since_bytes = 0

    return [(steward_role.Steward, "_compact", compact)], storm


def _trusting_close() -> tuple[list[Patch], Spoil]:
    right = vars(effects.Performer)["_close"]

    async def close(self: Any, effect: t.EndLease) -> t.StewardEvent:
        """Believes a provider that says that it has closed."""
        asked = vars(effects.Performer)["_ask_to_close"]
        try:
            return await right(self, effect)
        except UnavailableError:
            await asked(self, effect)
            return t.LedgerClosed(self._now(), effect.lease, effect.cumulative_ucr, 0, 0)

    return [(effects.Performer, "_close", close)], _nothing


def _bond_kept() -> tuple[list[Patch], Spoil]:
    right = vars(bank_client.BankClient)["close"]

    async def close(self: Any, lease: bytes) -> None:
        """Leaves out the word that frees the bond of a lease which its provider has closed."""
        standing = await self.standing(lease)
        if standing is None or not standing.said.closed_ms:
            await right(self, lease)

    return [(bank_client.BankClient, "close", close)], _nothing


def _voucher_forgotten() -> tuple[list[Patch], Spoil]:
    handlers = vars(machine)["_HANDLERS"]
    right = handlers[events.PeerPaid]

    def on_paid(state: ProviderState, event: Any) -> Any:
        """Says that it has the voucher, and writes nothing down."""
        before = state.changes
        try:
            return right(state, event)
        finally:
            state.changes = before

    return [(machine, "_HANDLERS", {**handlers, events.PeerPaid: on_paid})], storm


def _bank_forgets() -> tuple[list[Patch], Spoil]:
    def spoil(town: Town) -> None:
        """A bank that loses the escrow rows of the last seconds when it dies."""

        def lose(host: Host) -> None:
            rows, young_ms = town.ledger.rows, town.bank.clock.now_ms() - 5_000
            if host is town.bank:
                for key in [k for k, r in rows.items() if isinstance(r, EscrowRow) and r.opened_ms > young_ms]:
                    del rows[key]
            right(host)

        right = town.dying
        vars(town)["dying"] = lose
        for at_s in (2.5, 5.0, 9.0):
            town.loop.call_later(at_s, town.bank.kill, 0.5)

    return [], spoil


BUGS: dict[str, Bug] = {
    "redeem-pays-again": _redeem_again,
    "forged-voucher-paid": _forged_voucher,
    "escrow-not-released": _escrow_kept,
    "escrow-opened-twice": _opened_twice,
    "slash-without-evidence": _no_witnesses,
    "final-without-check": _first_answer_settles,
    "cheat-is-paid": _cheat_is_paid,
    "claim-counted-twice": _units_twice,
    "lane-claim-paid-again": _lane_claim_again,
    "budget-ignored": _budget_ignored,
    "unobserved-is-dead": _unobserved_is_dead,
    "lower-voucher-kept": _lower_voucher,
    "assigned-without-dedupe": _assigned_again,
    "claims-renumbered": _claims_renumbered,
    "acts-before-writing": _acts_before_writing,
    "disk-lies": _disk_lies,
    "events-go-first": _events_go_first,
    "trusting-close": _trusting_close,
    "bank-forgets": _bank_forgets,
    "claims-before-writing": _claims_before_writing,
    "bond-kept": _bond_kept,
    "voucher-forgotten": _voucher_forgotten,
}


@contextmanager
def planted(name: str) -> Iterator[Spoil]:
    """While open, the rules have the bug `name` ("" for none); call what it gives with the town before it runs.
    KeyError for a bug that is not there. Changes modules: not for threads."""
    patches, spoil = BUGS[name]() if name else ([], _nothing)
    before: list[Patch] = [(place, attribute, vars(place)[attribute]) for place, attribute, _ in patches]
    for place, attribute, value in patches:
        setattr(place, attribute, value)
    try:
        yield spoil
    finally:
        for place, attribute, value in before:
            setattr(place, attribute, value)
