"""Claims from the signature to the money: one machine for the answer to a task and for a batch of lane tasks. Only here
do final units grow, and only final units are paid. Which claim is final, waits or is worth nothing is for the job's
check to say (`checks/check.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fallow.kinds.registry import metered
from fallow.rules.jobs import Attempt, Blame
from fallow.rules.steward.events import Agreeing, Charge, KeepReceipt
from fallow.rules.steward.slots import end_runs, reslot, set_step, stop_seat
from fallow.rules.steward.state import Claim, Fate, Job, Mark, Run, Seat, Slot, Stage, Step, Turn
from fallow.wire.claims import task_id
from fallow.wire.ledger import Evidence
from fallow.wire.tasks import TaskSpec

MAX_OTHERS = 8


class Finding(NamedTuple):
    """Why a claim is final, as its receipt says it: in a word, in a sentence, the equal claims of others, and how these
    others were drawn, as KeepReceipt says."""

    check: str
    reason: str
    agreeing: tuple[Agreeing, ...] = ()
    seed: bytes = b""
    drawn_for: Evidence | None = None
    drawn: tuple[bytes, ...] = ()
    outside: tuple[bytes, ...] = ()
    undrawn: tuple[bytes, ...] = ()


def admit(turn: Turn, seat: Seat, claim: Claim) -> None:
    """A seat has signed for work that was asked of it. Its units are held already."""
    seat.claims[claim.hash] = claim
    turn.state.claims[claim.hash] = seat.lease
    seat.tasks_claimed += claim.count
    seat.units_claimed += claim.units


def claim_of(job: Job, run: Run) -> Claim | None:
    """The claim of a run while it is not decided."""
    return job.seats[run.seat].claims.get(run.claim_hash)


def hold(turn: Turn, seat: Seat, claim: Claim, *, trial: bool = False) -> None:
    """The claim is provisional from now on. One on `trial` stood its check, and is paid when its account's trial ends
    well, and never if it does not."""
    claim.since_ms, claim.passed = turn.now_ms, turn.state.standing(seat.account).passed
    claim.trial, claim.asked = trial, None


def finalise(turn: Turn, job: Job, seat: Seat, claim: Claim, finding: Finding) -> None:
    """The claim is final: its units are owed, its receipt is kept. A batch is forgotten here: its receipt holds what is
    worth keeping."""
    if not _drop(turn, seat, claim):
        return
    run = _run_of(job, seat, claim)
    if run is not None:
        run.fate = Fate.FINAL
    _owe(turn, job, seat, claim, run, finding)


def _owe(turn: Turn, job: Job, seat: Seat, claim: Claim, run: Run | None, finding: Finding) -> None:
    before = seat.owed_ucr()
    seat.money.final_units += claim.units
    turn.paying[seat.lease] = seat
    assert seat.ours is not None, "a claim comes under a lease"
    assert seat.theirs is not None, "a claim comes under a lease"
    turn.ask(
        KeepReceipt(
            job=job.id,
            lease=seat.lease,
            terms=seat.leased,
            ours=seat.ours,
            theirs=seat.theirs,
            provider_certificate=seat.offer.certificate,
            claim_hash=claim.hash,
            claim=claim.root,
            spec=run.spec if run is not None else None,
            output=run.output if run is not None else None,
            units=claim.units,
            paid_ucr=seat.owed_ucr() - before if seat.stage is not Stage.CLOSED else 0,
            check=finding.check,
            reason=finding.reason,
            agreeing=finding.agreeing,
            seed=finding.seed,
            drawn_for=finding.drawn_for,
            drawn=finding.drawn,
            outside=finding.outside,
            undrawn=finding.undrawn,
        )
    )


def clear(turn: Turn, job: Job, seat: Seat, claim: Claim, finding: Finding) -> None:
    """Make a provisional claim final."""
    finalise(turn, job, seat, claim, finding)
    if claim.slot is not None and job.slots[claim.slot].step is Step.PROVISIONAL:
        set_step(job, job.slots[claim.slot], Step.FINAL)


def void(turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
    """The claim turned out to be worth nothing, or of nobody's use without being wrong; it will not be paid."""
    run = _run_of(job, seat, claim)
    if _drop(turn, seat, claim) and run is not None:
        run.fate = Fate.VOID


def annul(turn: Turn, job: Job, slot: Slot, code: str) -> None:
    """What is under way for the slot is called off, what was claimed counts for nothing, and nobody is blamed."""
    end_runs(turn, job, slot)
    for run in slot.live():
        slot.attempts.append(Attempt(run.account, Blame.PLACE, code))
        void_run(turn, job, run)


def void_run(turn: Turn, job: Job, run: Run) -> None:
    """The same for the claim of a run, if it is not decided."""
    claim = claim_of(job, run)
    if claim is not None:
        void(turn, job, job.seats[run.seat], claim)


def _drop(turn: Turn, seat: Seat, claim: Claim) -> bool:
    """-> whether it was still to be decided."""
    if seat.claims.pop(claim.hash, None) is None:
        return False
    del turn.state.claims[claim.hash]
    seat.money.held_units -= claim.units
    return True


def _run_of(job: Job, seat: Seat, claim: Claim) -> Run | None:
    runs = job.slots[claim.slot].runs if claim.slot is not None else ()
    return next((run for run in runs if run.claim_hash == claim.hash and run.seat == seat.number), None)


def evidence(job: Job, run: Run) -> Evidence:
    """A single task's claim as a ledger wants it: one leaf, no path."""
    theirs = job.seats[run.seat].theirs
    assert theirs is not None, "a claim comes under a lease"
    assert run.root is not None, "only claims are evidence"
    assert run.output is not None, "a claim came with its output"
    return Evidence(theirs, run.root, run.answer, metered(run.spec, run.output), 0, ())


class Refuted(NamedTuple):
    """What speaks against a claim: what `accused` answered to `task`, and what `others`, other accounts, did."""

    task: TaskSpec
    accused: Evidence
    others: Sequence[Evidence]


def refute(turn: Turn, job: Job, seat: Seat, claim: Claim | None, text: str, proof: Refuted | None = None) -> None:
    """The claim is wrong: it is void, its account is banned, its task is for somebody else. Where there is `proof`
    enough for a ledger and a stake to take, the account is charged."""
    turn.note(job, "caught", text, seat.node)
    if proof is not None and seat.leased.stake_ucr and seat.stage in (Stage.OPEN, Stage.CLOSING):
        task = bytes(task_id(proof.task))
        others = tuple(proof.others[:MAX_OTHERS])
        charge = Charge(seat.lease, task, proof.task, proof.accused, others, seat.leased.stake_ucr)
        seat.money.charges[task] = charge
        turn.ask(charge)
    if claim is not None:
        void(turn, job, seat, claim)
    ban(turn, seat.account)
    if claim is not None and claim.slot is not None:
        reslot(turn, job, job.slots[claim.slot])


def ban(turn: Turn, account: bytes) -> None:
    """No more work and no more pay for the account, in any job; what it claimed and nobody checked is done again."""
    state = turn.state
    if state.standing(account).banned:
        return
    state.standings[account] = state.standing(account)._replace(banned=True)
    for job_id, number in list(state.accounts.get(account, {})):
        job = state.jobs[job_id]
        seat = job.seats[number]
        if seat.stage is Stage.OPEN:
            seat.mark = Mark.BANNED
        turn.touch(job)
        stop_seat(turn, job, seat, cancel=True)
        for slot in dict.fromkeys(claim.slot for claim in seat.claims.values()):
            for claim in [claim for claim in seat.claims.values() if claim.slot == slot]:
                void(turn, job, seat, claim)
            if slot is not None:
                reslot(turn, job, job.slots[slot])
