"""The steward's whole memory as one record, and what of a job is kept when nothing can happen to it any more.

A record stands for all events up to a number: whoever has it replays only what came after. The state is plain structs
without sharing, so what comes back is equal, and goes on in the same way. Jobs that are over leave the state first, so
that a record is as large as what is under way, not as the history. docs/adr/0010 says why it is done so.
"""

from __future__ import annotations

import msgspec

from fallow.errors import fail
from fallow.rules.steward.events import Charge
from fallow.rules.steward.state import Job, Seat, Stage, State
from fallow.rules.steward.view import view
from fallow.wire.codec import recall
from fallow.wire.documents import Signed, Word
from fallow.wire.local import JobView
from fallow.wire.tasks import TaskOutput

FORM = 3
"""Of the state, as a whole. Fields with defaults may come without a new one; what else changes needs a new number. What
is of a former form is not read but salvaged (`remains.py`)."""
REST_MS = 600_000
"""How long a job that is over is still remembered as a whole: for calls that are on their way about it."""


_ENCODER = msgspec.msgpack.Encoder()


class Snapshot(msgspec.Struct, frozen=True):
    """`state` after the events up to `number`."""

    form: int
    number: int
    state: State


class Papers(msgspec.Struct, frozen=True, array_like=True):
    """What receipts about a lease take, beside its order and quote. `ours` and `theirs` are the signed lease,
    `certificate` the provider's; `final_units` were found right, and `owed_ucr` was promised for them in all. `refuted`
    is what its provider answered where it was caught."""

    job: Word
    ours: Signed
    theirs: Signed
    certificate: Signed
    final_units: int
    owed_ucr: int
    refuted: TaskOutput | None = None


class Retired(msgspec.Struct, frozen=True):
    """All that is kept of a job that has left the state: as people see it, and the leases that its receipts are
    about."""

    view: JobView
    leases: dict[bytes, Papers]


def write_snapshot(state: State, number: int) -> bytes:
    """The state after the events up to `number`. Not the canonical encoding, which would sort dicts: here their order
    decides things."""
    return _ENCODER.encode(Snapshot(FORM, number, state))


class _Form(msgspec.Struct):
    form: int


def is_former(raw: bytes) -> bool:
    """Whether a snapshot is of a form before this one. Raises UsageError E1810 for what is damaged."""
    return recall(_Form, raw).form < FORM


def read_snapshot(raw: bytes) -> Snapshot:
    """Raises UsageError E1810 for what cannot be read: damaged, or of another form."""
    form = recall(_Form, raw).form
    if form != FORM:
        raise fail("E1810", f"the steward's snapshot is of form {form}, this Fallow reads {FORM}")
    return recall(Snapshot, raw)


def retire(state: State, before_ms: int, charges: dict[bytes, Charge]) -> list[Retired]:
    """Take the jobs out of the state that were over before `before_ms` and whose leases are all closed; -> what is kept
    of them, oldest first. Events that speak of them are dropped from now on, as events about strangers are; a job of
    the same id must be refused by whoever keeps the outcomes. `charges` are the upheld ones by lease."""
    done = [job for job in state.jobs.values() if job.over and not job.live and job.ended_ms < before_ms]
    found: list[Retired] = []
    for job in done:
        seen = view(state, job.id)
        assert seen is not None, "it was found there"
        leased = [seat for seat in job.seats if seat.stage is Stage.CLOSED]
        found.append(Retired(seen, {seat.lease: papers_of(job, seat, charges.get(seat.lease)) for seat in leased}))
        _forget(state, job)
    return found


def papers_of(job: Job, seat: Seat, charge: Charge | None = None) -> Papers:
    """The papers of a seat that has a lease; `charge` is the upheld one."""
    assert seat.ours is not None, "both have signed"
    assert seat.theirs is not None, "both have signed"
    refuted = None if charge is None else refuted_output(job, charge)
    return Papers(
        job.id, seat.ours, seat.theirs, seat.offer.certificate, seat.money.final_units, seat.owed_ucr(), refuted
    )


def refuted_output(job: Job, charge: Charge) -> TaskOutput | None:
    """What the accused answered to the task of a charge; None for a lane's, and where it is not known."""
    slots = (slot for slot in job.slots if any(run.task == charge.task for run in slot.runs))
    runs = (run for slot in slots for run in slot.runs)
    return next((v.output for v in runs if v.task == charge.task and v.answer == charge.accused.output), None)


def _forget(state: State, job: Job) -> None:
    del state.jobs[job.id]
    for seat in job.seats:
        state.leases.pop(seat.lease, None)
        account = state.accounts.get(seat.account, {})
        account.pop((job.id, seat.number), None)
        if not account:
            state.accounts.pop(seat.account, None)
        for claim in seat.claims:
            state.claims.pop(claim, None)
