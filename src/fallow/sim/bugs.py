"""Bugs to plant: each undoes one thing that the rules (or an interpreter) do right, so that tests can show that the
simulator would notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from fallow.rules import market, trust
from fallow.rules.escrow import EscrowRow, leases, ledger, verdicts
from fallow.rules.escrow.books import Draft, escrow_of
from fallow.rules.escrow.facts import VoucherFacts
from fallow.rules.escrow.rows import Book, Place
from fallow.rules.membership import Presence, Roll
from fallow.rules.provider import events, machine
from fallow.rules.steward import claims
from fallow.rules.steward.checks import audit
from fallow.rules.steward.shapes import lanes
from fallow.rules.steward.snapshot import write_snapshot
from fallow.sim import steward as steward_process
from fallow.sim.event_log import Disk
from fallow.wire.ledger import Refusal

if TYPE_CHECKING:
    from fallow.sim.pool import Pool

Spoil = Callable[["Pool"], None]
Patch = tuple[Any, str, Any]
Bug = Callable[[], tuple[list[Patch], Spoil]]


def _nothing(_pool: Pool) -> None:
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
        vars(audit)["_finalise"](turn, job, run, claims.Finding("checked", "outvoted"))

    return [(audit, "_catch", catch)], _nothing


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
            seat.lane_next = 1
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

    def on_paid(lease: events.LeaseEntry, event: Any, redeem_ms: int) -> Any:
        if lease.phase != "closed":
            lease.voucher_ucr = 0
        return right(lease, event, redeem_ms)

    return [(machine, "on_paid", on_paid)], _nothing


def _assigned_again() -> tuple[list[Patch], Spoil]:
    handlers = vars(machine)["_HANDLERS"]
    right = handlers[events.PeerAssigned]

    def on_assigned(state: events.ProviderState, event: events.PeerAssigned) -> Any:
        lease = state.leases.get(event.lease)
        if lease is not None and event.task in lease.tasks and lease.tasks[event.task].phase == "claimed":
            del lease.tasks[event.task]
        return right(state, event)

    return [(machine, "_HANDLERS", {**handlers, events.PeerAssigned: on_assigned})], _nothing


def _claims_renumbered() -> tuple[list[Patch], Spoil]:
    handlers = vars(machine)["_HANDLERS"]
    right = handlers[events.ProviderRestarted]

    def on_restarted(state: events.ProviderState, event: Any) -> Any:
        for lease in state.leases.values():
            lease.claims = 0
        return right(state, event)

    return [(machine, "_HANDLERS", {**handlers, events.ProviderRestarted: on_restarted})], _nothing


def storm(pool: Pool) -> None:
    """No bug: many more deaths than a plan has, for bugs that only a death at the right point shows."""
    for number in range(40):
        process = pool.world.rng.choice([pool.steward, *pool.providers])
        points = pool.world.rng.randrange(1, 9)
        pool.world.after(1_000 * number, lambda process=process, points=points: process.doom(points, 300))


def _acts_before_writing() -> tuple[list[Patch], Spoil]:
    def spoil(pool: Pool) -> None:
        storm(pool)
        pool.steward.write_ahead = False
        for each in pool.providers:
            each.write_ahead = False

    return [], spoil


def _disk_lies() -> tuple[list[Patch], Spoil]:
    def spoil(pool: Pool) -> None:
        for each in (pool.steward, *pool.providers):
            each.disk = Disk(flushes=False)

    return [], spoil


def _events_go_first() -> tuple[list[Patch], Spoil]:
    def compact(self: Any) -> None:
        """Forgets the events before their snapshot is written."""
        number = self.log.append(steward_process.STREAM, [])
        self.log.cut(steward_process.STREAM, number, {})
        self.point()
        self.log.put(steward_process.SNAPSHOT, write_snapshot(self.state, number))
        self._snapshot = number

    return [(steward_process.Steward, "_compact", compact)], storm


def _trusting_close() -> tuple[list[Patch], Spoil]:
    def spoil(pool: Pool) -> None:
        pool.steward.trusting = True

    return [], spoil


def _bank_forgets() -> tuple[list[Patch], Spoil]:
    def spoil(pool: Pool) -> None:
        """A bank that loses an escrow row of the last second when it dies."""

        def lose() -> None:
            rows = pool.bank.ledger.rows
            young = [k for k, r in rows.items() if isinstance(r, EscrowRow) and r.opened_ms > pool.world.now_ms - 5_000]
            for key in young:
                del rows[key]

        vars(pool.bank)["on_death"] = lose

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
}


@contextmanager
def planted(name: str) -> Iterator[Spoil]:
    """While open, the rules have the bug `name` ("" for none); call what it gives with the pool before it runs.
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
