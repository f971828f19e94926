"""No checks: everything is paid as claimed."""

from __future__ import annotations

from fallow.rules.steward.check import Check, PolicyError
from fallow.rules.steward.claims import Finding, finalise
from fallow.rules.steward.state import Claim, Job, Seat, Turn

UNASKED = Finding("none", "the job asked for no checks")


class Unchecked(Check):
    """For machines of your own."""

    name = "none"
    proves = "nothing but who signed for it"
    leaves_open = "it may be made up: nobody looked"

    def parse(self, settings: str, *, in_links: bool) -> Check | PolicyError:
        return PolicyError(f"{settings[:80]!r} is no setting of {self.name}, which has none") if settings else self

    def begin(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        finalise(turn, job, seat, claim, UNASKED)
