"""A task's claim under audit: whether it is checked, who is asked, what the answers prove, and what that means."""

from __future__ import annotations

from fallow.rules import trust
from fallow.rules.steward.blobs import keep
from fallow.rules.steward.checks import replay, sample
from fallow.rules.steward.checks.look import look_at, seen_of
from fallow.rules.steward.checks.standing import SAME, clear, on_trial, outside, passed, pay_up, policy_of, reopened
from fallow.rules.steward.claims import (
    MAX_OTHERS,
    Finding,
    Refuted,
    annul,
    claim_of,
    evidence,
    finalise,
    hold,
    refute,
    void_run,
)
from fallow.rules.steward.dispatch import assign, decide
from fallow.rules.steward.events import Agreeing, NotReplayed, Replayed
from fallow.rules.steward.hiring import can_recruit, outsider_coming
from fallow.rules.steward.slots import (
    begun,
    drop_check,
    end_runs,
    reslot,
    respec,
    set_step,
)
from fallow.rules.steward.state import Claim, Job, Mark, Run, Seat, Slot, Stage, Step, Turn
from fallow.rules.steward.terms import same_everywhere
from fallow.rules.trust import Reason

MAX_SOURCES = 16
MAX_AGREEING = 16
OPTIMISTIC = frozenset({Reason.SAMPLED, Reason.CLOSING})
"""A claim under such a check is used meanwhile; if it proves false, what was built on it is taken back."""


def begin(turn: Turn, job: Job, slot: Slot, seat: Seat, claim: Claim) -> None:
    """A slot in KEEPING whose claim is drawn and whose outputs are here: check it, or let it stand for now."""
    policy, look = policy_of(job), look_at(slot)
    look.seed, look.drawn_for, look.drawn = claim.seed, claim.hash, claim.drawn
    standing = turn.state.standing(seat.account)
    if not probing(job, seat.account) < policy.probation - standing.passed:
        standing = standing._replace(passed=policy.probation)
    reason = trust.must_check(policy, standing, claim.seed, forced=slot.forced)
    if reason is None:
        reopened(seat)
        hold(turn, seat, claim)
        set_step(job, slot, Step.PROVISIONAL)
        return
    begin_check(turn, job, slot, reason)


def probing(job: Job, account: bytes) -> int:
    """How many probation checks of the account's claims are under way: they count as passed when it is asked whether
    one more is needed, since when one fails, all that the account claimed is done again anyway."""
    found = (job.slots[key] for key in job.queue.checking)
    return sum(1 for slot in found if seen_of(slot).reason is Reason.PROBATION and _first(slot) == account)


def _first(slot: Slot) -> bytes:
    return next((run.account for run in slot.live()), b"")


def begin_check(turn: Turn, job: Job, slot: Slot, reason: Reason) -> None:
    """Have the slot's claim done again elsewhere, or a sample of it where that is what the policy says. Its runs are
    no longer waiting to be cleared."""
    for claim in _claims(job, slot):
        claim.since_ms = None
    look = look_at(slot)
    look.reason, look.since_ms, look.called = reason, turn.now_ms, ()
    set_step(job, slot, Step.CHECKING)
    if reason in (Reason.PROBATION, Reason.SAMPLED):
        sample.begin(job, slot)
    advance(turn, job, slot, recruit=True)


def doubt(turn: Turn, job: Job, slot: Slot, text: str) -> bool:
    """An answer that is doubted is checked, once, whatever chance says."""
    if slot.forced or slot.step is Step.FINAL:
        return False
    slot.forced = True
    turn.note(job, "check", text)
    if slot.step is Step.PROVISIONAL:
        begin_check(turn, job, slot, Reason.FORCED)
    return True


def builds_on(job: Job, slot: Slot) -> bool:
    """Not on the answer of an account whose probation is being decided. On one that was drawn by chance: if it proves
    false, what was built on it is taken back."""
    if slot.step is Step.PROVISIONAL:
        run = slot.chosen()
        return run is not None and not probing(job, run.account)
    if slot.usable:
        return True
    look = seen_of(slot)
    return slot.step is Step.CHECKING and look.reason in OPTIMISTIC and not look.disputed and not slot.forced


def go_on(turn: Turn, job: Job) -> None:
    """Look after the checks that want auditors, but for those whose drawn auditors are all there and busy."""
    if not job.queue.wanting:
        return
    there = job.usable
    known, free = {seat.account for seat in there}, {seat.account for seat in there if len(seat.running) < job.depth}
    for key in list(job.queue.wanting):
        slot, called = job.slots[key], seen_of(job.slots[key]).called
        if not called or not known.issuperset(called) or not free.isdisjoint(called):
            advance(turn, job, slot, recruit=True)


def advance(turn: Turn, job: Job, slot: Slot, *, recruit: bool) -> None:
    """Count the runs of a slot that is being checked. Ask further auditors, settle, or give the check up; without
    `recruit` nobody new is asked (the job is ending)."""
    if slot.step is not Step.CHECKING:
        return
    live = slot.live()
    if replay.under_way(turn, job, slot):
        return
    if recruit:
        job.queue.wanting[slot.key] = None
    if begun(job, slot):
        _advance_sample(turn, job, slot, recruit=recruit)
        return
    under_way = sum(1 for run in slot.running() if run.task == slot.task)
    ballot = [trust.Vote(run.account, run.answer) for run in live]
    match trust.tally(ballot, under_way, policy_of(job).quorum):
        case trust.Settled(right=right, wrong=wrong) if wrong and _outside(job, slot).isdisjoint(right):
            _undecided(turn, job, slot)
        case trust.Settled(answer=answer, right=right):
            _settle(turn, job, slot, answer, right)
        case trust.Undecided():
            _undecided(turn, job, slot)
        case trust.Open(more=more, disputed=disputed):
            look_at(slot).disputed = disputed or seen_of(slot).dissent is not None
            if more and recruit:
                _ask_auditors(turn, job, slot, more, under_way)
            elif recruit:
                job.queue.wanting.pop(slot.key, None)
            elif not under_way and not recruit and not (disputed and replay.ask(turn, job, slot)):
                _abandon(turn, job, slot)


def replayed(turn: Turn, job: Job, seat: Seat, event: Replayed | NotReplayed) -> None:
    """Our own machine has done it, or cannot: then nobody can decide."""
    claim = seat.claims.get(event.claim_hash)
    if claim is None or claim.slot is None or seen_of(job.slots[claim.slot]).replay != claim.hash:
        return
    slot, claim.asked = job.slots[claim.slot], None
    look_at(slot).replay = b""
    right = tuple(run.account for run in slot.live() if isinstance(event, Replayed) and run.answer == event.answer)
    if isinstance(event, Replayed) and right:
        _settle(turn, job, slot, event.answer, right, ours=True)
    else:
        _nobody(turn, job, slot)


def _outside(job: Job, slot: Slot) -> set[bytes]:
    """Who of those that answered was not taken for its price. What the others say alone against anybody is a doubt:
    they may be one owner's."""
    return {run.account for run in slot.live() if job.seats[run.seat].outside}


def _ask_auditors(turn: Turn, job: Job, slot: Slot, more: int, under_way: int) -> None:
    """The first `more` of the drawn order are asked; one of them being busy is no reason to ask another, or a provider
    could choose by being busy. Needed inputs that only the accused holds are fetched first: if it withholds them,
    nobody can check, and its claim is worth nothing."""
    if not _carry_kept(turn, job, slot) or outsider_coming(turn, job):
        return
    called, look = _called(turn, job, slot, more), look_at(slot)
    if not called and not under_way and not _out_of_room(job, slot):
        waited = turn.now_ms - look.since_ms >= turn.state.timing.audit_within
        if waited or not can_recruit(job):
            doubtful = look.disputed or any(attempt.code == "E1502" for attempt in slot.attempts)
            (_undecided if doubtful else _unchecked)(turn, job, slot)
    for account in called:
        free = [seat for seat in _seats_for(turn, job, slot, account) if len(seat.running) < job.depth]
        if free:
            assign(turn, job, slot, min(free, key=lambda seat: (len(seat.running), seat.number)))
            look.called = tuple(other for other in look.called if other != account)
            look.since_ms = turn.now_ms
    if len(called) >= more and not look.called:
        job.queue.wanting.pop(slot.key, None)


def _out_of_room(job: Job, slot: Slot) -> bool:
    """Whether others could check the slot if only their leases had money left. They get no more work under these:
    either new leases take their place, or the job has run out of money."""
    tried = {run.account for run in slot.runs if run.task == slot.task}
    found = False
    for seat in job.present:
        if seat.stage is Stage.OPEN and seat.account not in tried and seat.mark in (Mark.NONE, Mark.FULL):
            poor = seat.room_units() < slot.spec.units
            if poor and seat.usable:
                seat.mark, job.market.alone = Mark.FULL, False
            found = found or poor or seat.mark is Mark.FULL
    return found or job.market.dry


def _called(turn: Turn, job: Job, slot: Slot, more: int) -> tuple[bytes, ...]:
    """Who was drawn; drawn again only when more are needed, or somebody drawn cannot take part any more."""
    look = look_at(slot)
    if len(look.called) != more or not all(_seats_for(turn, job, slot, account) for account in look.called):
        accounts = {seat.account for seat in job.usable}
        eligible = [account for account in accounts if _seats_for(turn, job, slot, account)]
        drawn = outside(job)
        look.called = look.call(trust.auditor_order(look.seed, eligible, look.drawn, drawn), drawn, more)
    return look.called


def _carry_kept(turn: Turn, job: Job, slot: Slot) -> bool:
    carry = [part for part in slot.spec.inputs if part.name == "carry"]
    return keep(turn, job, carry, tuple(a for part in carry for a in job.blobs.holders.get(part.blob, ())))


def _seats_for(turn: Turn, job: Job, slot: Slot, account: bytes) -> list[Seat]:
    """The account's seats that can check the slot: of the same class of machine, with room, and none of them in it
    yet."""
    if any(run.account == account and run.task == slot.task for run in slot.runs):
        return []
    first = job.seats[slot.live()[0].seat].offer.hardware.numerics
    seats = (job.seats[number] for job_id, number in turn.state.accounts.get(account, {}) if job_id == job.id)
    return [
        seat
        for seat in seats
        if seat.usable
        and (same_everywhere(job.spec) or seat.offer.hardware.numerics == first)
        and seat.room_units() >= slot.spec.units
    ]


def _settle(turn: Turn, job: Job, slot: Slot, answer: bytes, right: tuple[bytes, ...], *, ours: bool = False) -> None:
    """The answer stands; with `ours` because our own machine gave it, however many gave another."""
    runs = slot.live()
    slot.answer = answer
    agree = [run for run in runs if run.answer == answer]
    text = f"{len(agree)} equal answers of {len(runs)}"
    end_runs(turn, job, slot)
    look = seen_of(slot)
    first = next((run for run in slot.runs if run.claim_hash == look.drawn_for), runs[0])
    undrawn = look.after(run.account for run in agree if run is not first)
    for run in agree:
        job.seats[run.seat].strikes = 0
        finding = replay.SAME if ours else Finding("checked", text)
        # who does a check again was drawn for the claim that it looked at, which is about other work
        if look.drawn_for and not ours:
            drawn_for = None if run is first else evidence(job, first)
            finding = Finding(
                "checked", text, _agreeing(job, slot, run), look.seed, drawn_for, look.drawn, look.outside, undrawn
            )  # fmt: skip
        _finalise(turn, job, run, finding)
    set_step(job, slot, Step.KEEPING)
    for account in right:
        passed(turn, account)
    dissent, look_at(slot).dissent = seen_of(slot).dissent, None
    for run in runs:
        if run.answer != answer:
            _catch(turn, job, slot, run, agree, ours=ours)
    if dissent is not None:
        accused = seen_of(job.slots[dissent]).accused
        _judge_dissent(turn, job, job.slots[dissent], right=all(run.claim_hash != accused for run in agree))
    decide(turn, job, slot)


def _advance_sample(turn: Turn, job: Job, slot: Slot, *, recruit: bool) -> None:
    """Wait for the one who does the drawn links again, as long as there may be one."""
    (audit,) = begun(job, slot)
    if audit.running():
        return
    since_ms = max(seen_of(slot).since_ms, seen_of(audit).since_ms)
    if not recruit:
        drop_check(turn, job, slot)
        _abandon(turn, job, slot)
    elif sample.auditors(job, audit) or outsider_coming(turn, job):
        look_at(audit).since_ms = turn.now_ms
    elif turn.now_ms - since_ms >= turn.state.timing.audit_within or not can_recruit(job):
        drop_check(turn, job, slot)
        _unchecked(turn, job, slot)


def audited(turn: Turn, job: Job, audit: Slot, run: Run) -> None:
    """The drawn links were done again. Equal hashes: the claim stands. Else the whole task is done again by others,
    which decides who is right: one account's word is not enough to accuse another."""
    slot, claim, found = sample.about(job, audit), claim_of(job, run), seen_of(audit)
    assert claim is not None, "it was claimed just now"
    audit.answer, claim.seed = run.answer, found.seed
    job.seats[run.seat].strikes = 0
    if seen_of(slot).sample == audit.key:
        look_at(slot).drop()
    # else it is gone: its account was banned meanwhile
    there = any(claimed.claim_hash == found.accused for claimed in slot.live())
    if run.answer == found.expected:
        if on_trial(job, run.account):  # a cheat that does its audits is not to earn by them until it is caught
            hold(turn, job.seats[run.seat], claim, trial=True)
            set_step(job, audit, Step.PROVISIONAL)
        else:
            finalise(turn, job, job.seats[run.seat], claim, SAME)
            set_step(job, audit, Step.FINAL)
        passed(turn, run.account)
        if there:
            words, checked_by = sample.words(job, audit, run), _signed(job, run)
            finding = Finding(
                "sampled", words, checked_by, found.seed, None, found.drawn, found.outside, found.undrawn
            )  # fmt: skip
            _stands(turn, job, slot, finding)
        else:
            advance(turn, job, slot, recruit=job.ending is None)
        return
    hold(turn, job.seats[run.seat], claim)
    set_step(job, audit, Step.PROVISIONAL)
    if not there:
        _confirm(turn, job, audit)
        advance(turn, job, slot, recruit=job.ending is None)
        return
    text = f"Task {slot.key}: a sample of it, done again, gives something else; all of it is done again."
    turn.note(job, "check", text, job.seats[slot.live()[0].seat].node)
    look = look_at(slot)
    look.dissent, look.disputed, look.since_ms = audit.key, True, turn.now_ms
    job.moved = job.form is not None
    advance(turn, job, slot, recruit=job.ending is None)


def _stands(turn: Turn, job: Job, slot: Slot, finding: Finding) -> None:
    """The check by sample found what was claimed."""
    for claimed in slot.live():
        job.seats[claimed.seat].strikes = 0
        _finalise(turn, job, claimed, finding)
        passed(turn, claimed.account)
    set_step(job, slot, Step.KEEPING)
    decide(turn, job, slot)


def _judge_dissent(turn: Turn, job: Job, audit: Slot, *, right: bool) -> None:
    """The whole task, done again, gave what was claimed: who accused falsely has computed falsely. Or it did not."""
    if right:
        _confirm(turn, job, audit)
        return
    for run in audit.live():
        refute(turn, job, job.seats[run.seat], claim_of(job, run), f"Task {audit.key}: a false alarm.")


def _confirm(turn: Turn, job: Job, audit: Slot) -> None:
    """Have an audit done again that found something else than a claim which is worth nothing now. Made-up answers to
    every audit accuse the guilty too: that a claim is wrong does not show that its auditor did any work, and what the
    right answer is nobody else has computed, since it starts from claimed states. In a job that is ending the answer
    stays provisional."""
    if audit.step is Step.PROVISIONAL and audit.live() and job.ending is None:
        begin_check(turn, job, audit, Reason.FORCED)


def _undecided(turn: Turn, job: Job, slot: Slot) -> None:
    """No quorum for any answer: our own machine decides."""
    if not replay.ask(turn, job, slot):
        _nobody(turn, job, slot)


def _nobody(turn: Turn, job: Job, slot: Slot) -> None:
    """Our machine cannot decide either. Where nobody is from outside, what most say is believed; else nobody is paid,
    nobody is accused, somebody else has to do it."""
    found = trust.tally([trust.Vote(run.account, run.answer) for run in slot.live()], 0, policy_of(job).quorum)
    if isinstance(found, trust.Settled) and not _outside(job, slot):
        _settle(turn, job, slot, found.answer, found.right)
        return
    turn.note(job, "check", f"Task {slot.key}: the answers differ and nobody can decide; it is done again.")
    look_at(slot).dissent = None
    annul(turn, job, slot, "E1502")
    if not slot.retired:
        respec(job, slot, slot.spec)
    reslot(turn, job, slot)


def _unchecked(turn: Turn, job: Job, slot: Slot) -> None:
    """Nobody is there to check it: the claims stay provisional till the end."""
    text = "Results cannot be checked now: there is no other provider that could. They stay provisional."
    turn.warn_once(job, "no auditor", text)
    claims = [(job.seats[run.seat], claim) for run in slot.live() if (claim := claim_of(job, run)) is not None]
    for seat, claim in claims:
        hold(turn, seat, claim)
    look_at(slot).called = ()
    set_step(job, slot, Step.PROVISIONAL)
    for seat, claim in claims:
        pay_up(turn, job, seat, claim)


def _abandon(turn: Turn, job: Job, slot: Slot) -> None:
    """The job is ending and nobody is asked any more: who has proved itself is believed, if nobody objects."""
    for run in slot.live():
        claim, standing = claim_of(job, run), turn.state.standing(run.account)
        if claim is None:
            continue
        if seen_of(slot).disputed or standing.passed < max(1, policy_of(job).probation):
            void_run(turn, job, run)
        else:
            hold(turn, job.seats[run.seat], claim)
            clear(turn, job, job.seats[run.seat], claim)
    if slot.chosen() is not None:
        set_step(job, slot, Step.FINAL)
    else:
        reslot(turn, job, slot)


def _catch(turn: Turn, job: Job, slot: Slot, run: Run, agree: list[Run], *, ours: bool) -> None:
    """`run` was outvoted by a quorum, or by our own machine and another: its account is charged where the evidence is
    enough for a ledger, and banned."""
    text = f"Task {slot.key}: a wrong result; {'this machine and ' * ours}{len(agree)} others agree on another."
    proof = None
    if trust.may_charge([other.account for other in agree], run.account):
        proof = Refuted(run.spec, evidence(job, run), [evidence(job, other) for other in agree[:MAX_OTHERS]])
    refute(turn, job, job.seats[run.seat], claim_of(job, run), text, proof)


def _finalise(turn: Turn, job: Job, run: Run, finding: Finding) -> None:
    claim = claim_of(job, run)
    if claim is not None:
        finalise(turn, job, job.seats[run.seat], claim, finding)
        pay_up(turn, job, job.seats[run.seat], claim)


def _agreeing(job: Job, slot: Slot, run: Run) -> tuple[Agreeing, ...]:
    others = (other for other in slot.live() if other is not run and other.answer == run.answer)
    return tuple(one for other in others for one in _signed(job, other))[:MAX_AGREEING]


def _signed(job: Job, run: Run) -> tuple[Agreeing, ...]:
    theirs = job.seats[run.seat].theirs
    return (Agreeing(run.account, theirs, run.root),) if theirs is not None and run.root is not None else ()


def _claims(job: Job, slot: Slot) -> list[Claim]:
    """Those of the slot that are not decided."""
    found = (claim_of(job, run) for run in slot.live())
    return [claim for claim in found if claim is not None]
