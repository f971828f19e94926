"""How claims become final and money moves: only here do final units grow, and only final units are paid."""

from __future__ import annotations

from typing import NamedTuple

from fallow.rules import trust
from fallow.rules.steward.events import (
    Agreeing,
    CloseLease,
    KeepReceipt,
    LedgerClosed,
    LedgerRefusedCharge,
    LedgerSlashed,
    Pay,
    PeerPaid,
)
from fallow.rules.steward.slots import set_step
from fallow.rules.steward.state import Batch, Fate, Job, Mark, Pending, Run, Seat, Slot, Stage, State, Step, Turn
from fallow.units import format_money
from fallow.wire.documents import Signed
from fallow.wire.tasks import TaskOutput, TaskSpec

MAX_AGREEING = 16
SAME = "what it found is what another had claimed"
"""Why an audit's claim is final."""


def finalise_run(turn: Turn, job: Job, slot: Slot, run: Run, check: str, reason: str) -> None:
    """The claim is final: its units are owed, its receipt is kept."""
    if run.fate is not Fate.CLAIMED or run.claim is None:
        return
    seat = job.seats[run.seat]
    run.fate = Fate.FINAL
    seat.held_units -= run.spec.units
    seat.claims.pop(run.claim_hash, None)
    seat.provisional.pop(run.claim_hash, None)
    turn.state.claims.pop(run.claim_hash, None)
    agreeing = _agreeing(job, slot, run) if check == "checked" else ()
    done = _Done(run.claim_hash, run.claim, run.spec.units, check, reason, run.spec, run.output, agreeing)
    _owe(turn, job, seat, done)
    run.seed = b""


class _Done(NamedTuple):
    """What a receipt says of one claim."""

    claim_hash: bytes
    claim: Signed
    units: int
    check: str
    reason: str
    spec: TaskSpec | None = None
    output: TaskOutput | None = None
    agreeing: tuple[Agreeing, ...] = ()


def _agreeing(job: Job, slot: Slot, run: Run) -> tuple[Agreeing, ...]:
    found: list[Agreeing] = []
    for other in slot.live():
        theirs = job.seats[other.seat].theirs
        if other is not run and other.answer == run.answer and other.claim is not None and theirs is not None:
            found.append(Agreeing(other.account, theirs, other.claim))
    return tuple(found[:MAX_AGREEING])


def finalise_batch(turn: Turn, job: Job, seat: Seat, batch: Batch, check: str, reason: str) -> None:
    """A batch of lane tasks is final. It is forgotten here: its receipt holds what is worth keeping."""
    seat.batches.pop(batch.claim_hash, None)
    seat.provisional.pop(batch.claim_hash, None)
    turn.state.claims.pop(batch.claim_hash, None)
    seat.held_units -= batch.units
    _owe(turn, job, seat, _Done(batch.claim_hash, batch.claim, batch.units, check, reason))


def _owe(turn: Turn, job: Job, seat: Seat, done: _Done) -> None:
    before = seat.owed_ucr()
    seat.final_units += done.units
    turn.paying[seat.lease] = seat
    assert seat.ours is not None, "a claim comes under a lease"
    assert seat.theirs is not None, "a claim comes under a lease"
    share = seat.owed_ucr() - before if seat.stage is not Stage.CLOSED else 0
    turn.ask(
        KeepReceipt(
            job=job.id,
            lease=seat.lease,
            terms=seat.leased,
            ours=seat.ours,
            theirs=seat.theirs,
            provider_certificate=seat.offer.certificate,
            claim_hash=done.claim_hash,
            claim=done.claim,
            spec=done.spec,
            output=done.output,
            units=done.units,
            paid_ucr=share,
            check=done.check,
            reason=done.reason,
            agreeing=done.agreeing,
        )
    )


def pay_out(turn: Turn) -> None:
    """One voucher per lease whose debt grew in this turn."""
    for seat in turn.paying.values():
        owed = seat.owed_ucr()
        if owed > seat.voucher_ucr and seat.stage in (Stage.OPEN, Stage.CLOSING):
            seat.voucher_ucr = owed
            turn.ask(Pay(seat.lease, seat.peer, owed))
    turn.paying.clear()


def paid(seat: Seat, event: PeerPaid) -> None:
    """The provider has a voucher; what it says of amounts that were never promised changes nothing."""
    seat.acked_ucr = max(seat.acked_ucr, min(event.cumulative_ucr, seat.voucher_ucr))


def hold(state: State, seat: Seat, claim_hash: bytes, seed: bytes, *, fresh: bool = False, trial: bool = False) -> None:
    """The claim is provisional: it waits to be cleared by later checks of its account, or by the end. A `fresh` one
    makes a seat that had its closing check due for another. One on `trial` stood its check, and is paid when its
    account's trial ends well, and never if it does not."""
    seat.closing_check = seat.closing_check and not fresh
    seat.provisional[claim_hash] = Pending(state.standing(seat.account).passed, seed, trial)


def on_trial(job: Job, account: bytes) -> bool:
    """Whether it is still to be decided what something that the account claimed in this job is worth."""
    return any(
        run.account == account and run.fate is Fate.CLAIMED
        for key in (*job.checking, *job.keeping)
        for run in job.slots[key].live()
    )


def passed(turn: Turn, account: bytes) -> None:
    """The account passed a check: its standing grows, and what is older than the window is cleared, as is what only
    waited for this."""
    state = turn.state
    standing = state.standing(account)
    state.standings[account] = standing._replace(passed=standing.passed + 1)
    for job_id, number in state.accounts.get(account, {}):
        job = state.jobs[job_id]
        seat = job.seats[number]
        for claim_hash, pending in list(seat.provisional.items()):
            old = trust.clears(job.policy, standing.passed + 1 - pending.passed)
            if not on_trial(job, account) if pending.on_trial else old:
                clear(turn, job, seat, claim_hash)


def clear(turn: Turn, job: Job, seat: Seat, claim_hash: bytes) -> None:
    """Make a provisional claim final: without a check of its own, or the check that it stood before its account's trial
    was over."""
    proven = turn.state.standing(seat.account).passed >= max(1, job.policy.probation)
    check = "cleared" if proven else "unchecked"
    reason = "its account passed other checks" if proven else "no other provider could check it"
    pending = seat.provisional.get(claim_hash)
    if pending is not None and pending.on_trial:
        check, reason = "sampled", SAME
    batch = seat.batches.get(claim_hash)
    if batch is not None:
        finalise_batch(turn, job, seat, batch, check, reason)
        return
    slot = job.slots[seat.claims[claim_hash]]
    for run in slot.runs:
        if run.claim_hash == claim_hash and run.fate is Fate.CLAIMED:
            finalise_run(turn, job, slot, run, check, reason)
    if slot.step is Step.PROVISIONAL:
        set_step(job, slot, Step.FINAL)
    if check == "unchecked":
        turn.warn_once(job, "unchecked", "Some results could not be checked: there was no other provider to do so.")


def close_seat(turn: Turn, job: Job, seat: Seat) -> None:
    """Settle a lease that owes and is owed nothing more."""
    if seat.stage is not Stage.OPEN or seat.charges:
        return
    pay_out(turn)
    seat.stage = Stage.CLOSING
    turn.ask(close_effect(seat))


def close_effect(seat: Seat) -> CloseLease:
    """The last word about a lease."""
    return CloseLease(seat.lease, seat.peer, seat.owed_ucr(), seat.leased.ends_ms)


def charged(turn: Turn, job: Job, seat: Seat, event: LedgerSlashed | LedgerRefusedCharge) -> None:
    """The bank has judged a charge."""
    if seat.charges.pop(event.task, None) is None:
        return
    if isinstance(event, LedgerSlashed):
        seat.slashed_ucr += event.slashed_ucr
        turn.note(job, "caught", f"{format_money(event.slashed_ucr)} of its stake was slashed.", seat.node)
    else:
        turn.note(job, "warning", f"The bank did not accept a charge: {event.what}", seat.node)


def closed(turn: Turn, job: Job, seat: Seat, event: LedgerClosed) -> None:
    """The bank has closed the escrow, at our wish or the provider's."""
    if seat.stage in (Stage.CLOSED, Stage.DROPPED):
        return
    seat.settled = (event.paid_ucr, event.refunded_ucr, event.slashed_ucr)
    seat.slashed_ucr = max(seat.slashed_ucr, event.slashed_ucr)
    seat.stage = Stage.CLOSED
    if seat.mark is Mark.NONE:
        seat.mark = Mark.LEAVING
    job.live.pop(seat.number, None)
    job.dry = job.alone = False
    text = f"Lease closed: {format_money(event.paid_ucr)} paid, {format_money(event.refunded_ucr)} back."
    turn.note(job, "paid", text, seat.node)
