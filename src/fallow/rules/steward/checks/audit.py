"""Audits: claims are drawn by chance and done again elsewhere. `trust.py` says which, by whom, and what it defends
against; `ballot.py` does it for tasks, `sample.py` for links of a committed chain, `batches.py` for lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fallow.rules import market, trust
from fallow.rules.steward.check import Check, Exhibit, PolicyError, Shown
from fallow.rules.steward.checks import ballot, batches, evidence, sample, standing
from fallow.rules.steward.checks.look import Closing, look_at, seen_of
from fallow.rules.steward.events import (
    KeepBlob,
    LaneAudited,
    LaneCaught,
    LaneUnchecked,
    NotReplayed,
    Replayed,
    StewardEvent,
)
from fallow.rules.steward.shape import shape_of
from fallow.rules.steward.slots import begun, end_run
from fallow.rules.steward.state import Claim, Job, Run, Seat, Slot, State, Step, Turn
from fallow.rules.trust import Policy
from fallow.wire.local import JobSpec


class Audit(standing.ByPolicy):
    """A hidden sample of the claims is done again by other accounts."""

    name = "audit"
    draws = True
    compares = True
    proves = "of a claim that was drawn, that others computed the same; of the rest, that cheating was a risk"
    leaves_open = "a rare lie may have been paid; accounts of one owner may have agreed on one"

    def parse(self, settings: str, *, in_links: bool) -> Check | PolicyError:
        found = trust.parse_settings(settings, exact=in_links)
        return Audit(found) if isinstance(found, Policy) else PolicyError(found)

    def least_seats(self) -> int:
        """One more than agree, so that a dispute can be decided."""
        return self.policy.quorum + 1

    def executions_ppm(self, spec: JobSpec, accounts: int) -> int:
        volume, check_ppm = shape_of(spec.work).volume(spec), market.check_ppm(spec, self.policy.links)
        return trust.expected_executions_ppm(self.policy, volume.tasks, accounts, volume.forced, check_ppm)

    def outsiders(self, job: Job) -> int:
        if shape_of(job.spec.work).on_lanes:
            return 0
        disputed = any(seen_of(job.slots[key]).disputed for key in job.queue.checking)
        return max(len(job.queue.checking), self.policy.quorum * disputed)

    def begin(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        if claim.slot is None:
            batches.begin(turn, job, seat, claim)
        else:
            ballot.begin(turn, job, job.slots[claim.slot], seat, claim)

    def answered(self, turn: Turn, job: Job, slot: Slot, run: Run) -> None:
        if slot.step is Step.RUNNING:
            ballot.audited(turn, job, slot, run)
        else:
            look_at(slot).since_ms = turn.now_ms
            ballot.advance(turn, job, slot, recruit=job.ending is None)

    def heard(self, turn: Turn, job: Job, seat: Seat, event: StewardEvent) -> None:
        match event:
            case LaneAudited():
                batches.audited(turn, job, seat, event)
            case LaneCaught():
                batches.caught(turn, job, seat, event)
            case LaneUnchecked():
                batches.unchecked(turn, job, seat, event)
            case Replayed() | NotReplayed():
                ballot.replayed(turn, job, seat, event)
            case _:
                pass

    def shown(self, seen: Exhibit) -> Shown:
        return evidence.shown(self.policy, seen)

    def doubt(self, turn: Turn, job: Job, slot: Slot, text: str) -> bool:
        return ballot.doubt(turn, job, slot, text)

    def builds_on(self, job: Job, slot: Slot) -> bool:
        return ballot.builds_on(job, slot)

    def tick(self, turn: Turn, job: Job) -> None:
        for number in list(job.live):
            seat = job.seats[number]
            pick = standing.pick_for_pay(turn, job, seat)
            if pick is not None:
                self._check_now(turn, job, seat, pick)
        ballot.go_on(turn, job)

    def place(self, turn: Turn, job: Job, slot: Slot, free: list[Seat]) -> Seat | None:
        return sample.place(turn, job, slot, free)

    def tidy(self, turn: Turn, job: Job) -> None:
        sample.let_go(turn, job)

    def resume(self, turn: Turn, job: Job) -> None:
        for key in job.queue.checking:
            look_at(job.slots[key]).since_ms = turn.now_ms

    def moments(self, state: State, job: Job) -> Iterator[int]:
        for key in job.queue.checking:
            yield seen_of(job.slots[key]).since_ms + state.timing.audit_within

    def keeps(self, job: Job) -> Sequence[KeepBlob]:
        return sample.missing(job)

    def close(self, turn: Turn, job: Job, seat: Seat) -> bool:
        """The seat's unchecked claims get one last check among them, drawn by the randomness of them all; when that
        passes, or nobody can do it, they are final. All of them are checked where the seat was given up."""
        waiting = [claim for claim in seat.claims.values() if claim.trial]
        if waiting and standing.on_trial(job, seat.account):
            return False  # under another lease of the account
        for claim in waiting:
            standing.clear(turn, job, seat, claim)
        if not seat.claims or isinstance(seat.check, Closing):
            return super().close(turn, job, seat)
        pick = seat.claims[trust.closing_pick({claim.hash: claim.seed for claim in seat.claims.values()})]
        seat.check = Closing()
        for claim in list(seat.claims.values()) if seat.suspect else (pick,):
            self._check_now(turn, job, seat, claim)
        done = not seat.running and all(claim.provisional for claim in seat.claims.values())
        return done and self.close(turn, job, seat)

    def _check_now(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        if claim.slot is None:
            batches.check_last(turn, job, seat, claim)
        elif job.slots[claim.slot].step is Step.PROVISIONAL:
            ballot.begin_check(turn, job, job.slots[claim.slot], trust.Reason.CLOSING)
        else:  # its answer was accepted with somebody else's claim
            standing.clear(turn, job, seat, claim)
            seat.check = None

    def stop(self, turn: Turn, job: Job, *, late: bool) -> None:
        for key in list(job.queue.checking):
            slot = job.slots[key]
            for run in (run for one in (slot, *begun(job, slot)) for run in one.running()) if late else ():
                end_run(turn, job, run, cancel=True)
            ballot.advance(turn, job, slot, recruit=False)

    def believes(self, state: State, job: Job, account: bytes) -> bool:
        return standing.proven(state, job, account)

    def clear(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        standing.clear(turn, job, seat, claim)
